#!/usr/bin/env bash
# A million random and a million corrupted sequences through the tokenizer; writes results.json beside this file.
# What follows on the command line goes to tests/abuse.py: --random 1000 --corrupted 1000 for a quick look,
# --data PATH for corruptions of the MIDI files of a folder instead of composed music.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python -m tests.abuse --random 1000000 --corrupted 1000000 --out "$here/results.json" "$@"
