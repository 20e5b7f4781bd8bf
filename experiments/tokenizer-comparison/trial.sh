#!/usr/bin/env bash
# All jobs of the tables of README.md: ASAP=PATH POP909=PATH bash experiments/tokenizer-comparison/trial.sh
# A job that has its row in results.json is not trained again. The rows of these jobs took 4.6 hours of training (their
# train_seconds), one thread each, two at a time, and some more to score.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run() { bash "$here/run.sh" --plan trial --precision bf16 "$@"; }
plain="pianolm-codebook pianolm-table"
ages=(--options ties=explicit --grammar) # pianolm at its best
codes=(--options ties=implicit --grammar)

# shellcheck disable=SC2086 # names of sides are several words
{
  run --data asap --notes 500000 --learning-rates 1e-3 --seeds 0 1 2 --sides tsd remi
  run --data asap --notes 500000 --learning-rates 1e-3 --seeds 0 1 2 --sides pianolm-codebook "${ages[@]}"
  run --data asap --notes 500000 --learning-rates 1e-3 --sides pianolm-table "${ages[@]}"
  run --data asap --notes 500000 --learning-rates 1e-3 --seeds 0 1 2 --sides pianolm-codebook "${codes[@]}"
  run --data asap --notes 500000 --learning-rates 1e-3 --sides pianolm-table "${codes[@]}"
  run --data asap --notes 500000 --learning-rates 2e-3 --sides tsd
  run --data asap --notes 500000 --learning-rates 2e-3 --seeds 0 1 2 --sides remi
  run --data asap --notes 500000 --learning-rates 2e-3 --sides $plain "${ages[@]}"

  run --data asap --notes 60000 --learning-rates 5e-4 1e-3 2e-3 --sides tsd remi
  run --data asap --notes 60000 --learning-rates 2e-3 --seeds 0 1 2 --sides tsd
  run --data asap --notes 60000 --learning-rates 5e-4 2e-3 --sides pianolm-codebook "${ages[@]}"
  run --data asap --notes 60000 --learning-rates 1e-3 --seeds 0 1 2 --sides pianolm-codebook "${ages[@]}"
  run --data asap --notes 60000 --learning-rates 1e-3 2e-3 --sides pianolm-table "${ages[@]}"
  run --data asap --notes 60000 --learning-rates 1e-3 --sides $plain "${codes[@]}"
  run --data asap --notes 60000 --learning-rates 2e-3 --sides pianolm-table "${codes[@]}"
  run --data asap --notes 60000 --learning-rates 1e-3 --sides $plain
  run --data asap --notes 60000 --learning-rates 1e-3 --sides pianolm-codebook --options ties=implicit
  run --data asap --notes 60000 --learning-rates 1e-3 --sides pianolm-codebook --options ties=explicit

  run --data pop909 --notes 125000 --learning-rates 1e-3 --seeds 0 1 2 --sides tsd tsd_tempo
  run --data pop909 --notes 125000 --learning-rates 1e-3 --sides remi
  run --data pop909 --notes 125000 --learning-rates 1e-3 --seeds 0 1 2 --sides pianolm-codebook "${ages[@]}"
  run --data pop909 --notes 125000 --learning-rates 1e-3 --sides pianolm-table "${ages[@]}"
  run --data pop909 --notes 125000 --learning-rates 1e-3 --sides $plain "${codes[@]}"
}
