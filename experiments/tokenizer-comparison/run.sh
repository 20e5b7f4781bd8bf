#!/usr/bin/env bash
# Trains all jobs of a plan in two processes, one thread each, and writes results.json, the picture and the tables of
# README.md beside this file. What follows on the command line goes to compare.py:
#   ASAP=PATH bash experiments/tokenizer-comparison/run.sh --plan trial --data asap --seeds 0 1 2
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
python "$here/compare.py" "$@" &
first=$!
python "$here/compare.py" "$@" &
second=$!
wait "$first"
wait "$second"
