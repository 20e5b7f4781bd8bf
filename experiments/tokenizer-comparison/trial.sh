#!/usr/bin/env bash
# Trains all jobs of the tables of README.md: ASAP=PATH POP909=PATH bash experiments/tokenizer-comparison/trial.sh
# A job with a row in results.jsonl is skipped. All jobs took 4.6 hours of training, one thread each, two at a time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run() { bash "$here/run.sh" --plan trial --precision bf16 "$@"; }
explicit=(--options ties=explicit --constrained)
implicit=(--options ties=implicit --constrained)
codebook=(--sides pianolm-codebook)
table=(--sides pianolm-table)

asap_500000() { run --data asap --notes 500000 "$@"; }
asap_500000 --learning-rates 1e-3 --seeds 0 1 2 --sides tsd remi
asap_500000 --learning-rates 1e-3 --seeds 0 1 2 "${codebook[@]}" "${explicit[@]}"
asap_500000 --learning-rates 1e-3 "${table[@]}" "${explicit[@]}"
asap_500000 --learning-rates 1e-3 --seeds 0 1 2 "${codebook[@]}" "${implicit[@]}"
asap_500000 --learning-rates 1e-3 "${table[@]}" "${implicit[@]}"
asap_500000 --learning-rates 2e-3 --sides tsd
asap_500000 --learning-rates 2e-3 --seeds 0 1 2 --sides remi
asap_500000 --learning-rates 2e-3 --sides pianolm-codebook pianolm-table "${explicit[@]}"

asap_60000() { run --data asap --notes 60000 "$@"; }
asap_60000 --learning-rates 5e-4 1e-3 2e-3 --sides tsd remi
asap_60000 --learning-rates 2e-3 --seeds 0 1 2 --sides tsd
asap_60000 --learning-rates 5e-4 2e-3 "${codebook[@]}" "${explicit[@]}"
asap_60000 --learning-rates 1e-3 --seeds 0 1 2 "${codebook[@]}" "${explicit[@]}"
asap_60000 --learning-rates 1e-3 2e-3 "${table[@]}" "${explicit[@]}"
asap_60000 --learning-rates 1e-3 --sides pianolm-codebook pianolm-table "${implicit[@]}"
asap_60000 --learning-rates 2e-3 "${table[@]}" "${implicit[@]}"
asap_60000 --learning-rates 1e-3 --sides pianolm-codebook pianolm-table
asap_60000 --learning-rates 1e-3 "${codebook[@]}" --options ties=implicit
asap_60000 --learning-rates 1e-3 "${codebook[@]}" --options ties=explicit

pop909() { run --data pop909 --notes 125000 --learning-rates 1e-3 "$@"; }
pop909 --seeds 0 1 2 --sides tsd tsd_tempo
pop909 --sides remi
pop909 --seeds 0 1 2 "${codebook[@]}" "${explicit[@]}"
pop909 "${table[@]}" "${explicit[@]}"
pop909 --sides pianolm-codebook pianolm-table "${implicit[@]}"
