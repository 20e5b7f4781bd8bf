#!/usr/bin/env bash
# Trains all jobs of a plan in two processes, one thread each, and writes tables and pictures. Arguments go to compare.py:
#   ASAP=PATH bash experiments/tokenizer-comparison/run.sh --plan trial --data asap --seeds 0 1 2
source "$(dirname "$0")/../setup.sh"
export OMP_NUM_THREADS=1
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
python "$here/compare.py" --artifacts "$artifacts" --out "$out" "$@" &
first=$!
python "$here/compare.py" --artifacts "$artifacts" --out "$out" "$@" &
second=$!
wait "$first"
wait "$second"
