#!/usr/bin/env bash
# All jobs of the tables of README.md: ASAP=PATH POP909=PATH bash experiments/tokenizer-comparison/trial.sh
# A job that has its row in results.json is not trained again. The 33 rows there took 1.7 hours of training
# (their train_seconds), one thread each, two at a time, and some more to score.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run() { bash "$here/run.sh" --plan trial --precision bf16 "$@"; }
ours() { run "$@" --sides pianolm-codebook --options held=codes; }

run --data asap --notes 60000
run --data asap --notes 60000 --learning-rates 1e-3 --seeds 1 2 --sides pianolm-codebook tsd remi
ours --data asap --notes 60000 --learning-rates 1e-3 --seeds 0 1 2
for option in bars=true pitch_order=descending; do
  run --data asap --notes 60000 --learning-rates 1e-3 --sides pianolm-codebook --options held=codes $option
done
run --data asap --notes 500000 --learning-rates 1e-3 --sides pianolm-codebook pianolm-table tsd
run --data asap --notes 500000 --learning-rates 1e-3 --sides pianolm-codebook --options held_velocity=false
ours --data asap --notes 500000 --learning-rates 1e-3
run --data pop909 --notes 125000 --learning-rates 1e-3 --sides pianolm-codebook pianolm-table tsd
ours --data pop909 --notes 125000 --learning-rates 1e-3
