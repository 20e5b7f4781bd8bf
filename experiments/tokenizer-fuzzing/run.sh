#!/usr/bin/env bash
# A million random and a million corrupted sequences through the tokenizer. Writes to OUT=PATH (default: this folder).
# Further arguments go to fuzz.py: --random 1000 --corrupted 1000 for a quick look, --data PATH to corrupt the MIDI files of a
# folder instead of composed music.
source "$(dirname "$0")/../setup.sh"
export OMP_NUM_THREADS=1
python "$here/fuzz.py" --random 1000000 --corrupted 1000000 --out "$out" "$@"
