#!/usr/bin/env bash
# Trains pianolm's layouts, MidiTok's TSD and REMI with and without reminders, and BEAT on ASAP, groups in order of value:
#   ASAP=PATH bash experiments/tokenizer-comparison/peers.sh
#   ASAP=PATH ONLY="short long" bash experiments/tokenizer-comparison/peers.sh       # some of the groups
#   PRECISION=bf16 ...                   # where the processor has instructions for it: faster, and rows of trial.sh count
# A job with a row in results.jsonl is skipped. Minutes are those of one free core with 32 bits; two jobs run at a time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wanted() { [[ -z ${ONLY:-} || " $ONLY " == *" $1 "* ]]; }
run() { bash "$here/run.sh" --plan trial --precision "${PRECISION:-32}" --data asap "$@"; }
explicit=(--options ties=explicit constrained)
ties=(--options ties=explicit bars=true tempo=log50_tuned constrained) # tokenizer=ties
all=(--sides tsd remi tsd_reminded remi_reminded beat pianolm-codebook
  --options constrained "${explicit[@]}" --options ties=implicit constrained "${ties[@]}")
adamw=(--learning-rates 2e-3)
muon=(--optimizer muon --learning-rates 0.02)
best=(--sides remi remi_reminded pianolm-codebook "${explicit[@]}" "${ties[@]}") # two of pianolm's, two of MidiTok's

# All sides at 60,000 notes: 18 jobs of 3 to 4 minutes, 1 hour
if wanted short; then run --notes 60000 "${all[@]}" --learning-rates 2e-3 4e-3; fi
# All sides at 500,000 notes: 9 jobs of 20 minutes (pianolm 26), 3.5 hours
if wanted long; then run --notes 500000 "${all[@]}" "${adamw[@]}"; fi
# Whether Muon is better for both: 2 jobs of 5 minutes and 2 of 30, 1.2 hours
if wanted muon; then
  run --notes 60000 --sides remi pianolm-codebook "${explicit[@]}" "${muon[@]}"
  run --notes 500000 --sides remi pianolm-codebook "${explicit[@]}" "${muon[@]}"
fi
# Further seeds of the best: 8 jobs of 20 minutes (pianolm 26) and 10 of 3, 3.6 hours
if wanted seeds; then
  run --notes 500000 "${best[@]}" --seeds 0 1 2 "${adamw[@]}"
  run --notes 60000 "${best[@]}" --seeds 0 1 2 "${adamw[@]}"
  run --notes 60000 --sides beat --seeds 0 1 2 "${adamw[@]}"
fi
# MidiTok trained with token masks, as pianolm is: 4 jobs of 3 minutes, 12 minutes
if wanted constrained; then
  run --notes 60000 --sides tsd remi tsd_reminded remi_reminded --constrained "${adamw[@]}"
fi
