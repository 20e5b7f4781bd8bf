#!/usr/bin/env bash
# How prepare grows with the number of files, on an otherwise idle machine; about a quarter of an hour on two cores.
# MIDI=PATH: a folder of MIDI files to make others of. FILES=46000. SCRATCH=PATH (default: a temporary folder) takes them and the
# artifacts, about 10 GB. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../../setup.sh"
scratch=${SCRATCH:-$(mktemp -d)}
trap 'rm -rf "$scratch/made" "$scratch/run"' EXIT
python "$here/make.py" "${MIDI:?set MIDI to a folder of MIDI files}" "$scratch/made" --files "${FILES:-46000}"
sleep 3 # the hash of a file that was just written is not remembered
python "$here/bench.py" --root "$scratch/made" --scratch "$scratch/run" --out "$out"
