#!/usr/bin/env bash
# Kills tiny training runs 20 times each and compares them with uninterrupted ones. Writes to OUT=PATH (default: this
# folder). Further arguments go to killing.py, such as --kills 3 --only "base, 1" for a quick look.
source "$(dirname "$0")/../setup.sh"
export OMP_NUM_THREADS=1
python "$here/killing.py" --kills 20 --out "$out" "$@"
