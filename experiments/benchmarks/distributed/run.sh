#!/usr/bin/env bash
# Kills a run of two processes and continues it with one, two and four, and times steps of one process, DDP and FSDP2, all on
# the CPU. Writes to OUT=PATH (default: this folder). Further arguments go to both scripts:
# --seed N draws another moment to kill at, --steps N times fewer or more steps.
source "$(dirname "$0")/../../setup.sh"
export OMP_NUM_THREADS=1
python "$here/resume.py" --out "$out" "$@"
python "$here/bench.py" --out "$out" "$@"
