#!/usr/bin/env bash
# Trains pianolm's layouts, MidiTok's TSD and REMI with and without reminders, and BEAT, with both optimizers on ASAP:
#   ASAP=PATH bash experiments/tokenizer-comparison/peers.sh                          # 8 hours, two jobs at a time
#   ASAP=PATH ONLY="rates-adamw long-adamw" bash experiments/tokenizer-comparison/peers.sh    # some of the groups
# A job with a row in results.jsonl is skipped. Minutes are those of one thread on a free core, of jobs without a row.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wanted() { [[ -z ${ONLY:-} || " $ONLY " == *" $1 "* ]]; }
run() { bash "$here/run.sh" --plan trial --precision bf16 --data asap "$@"; }
explicit=(--options ties=explicit constrained)
ties=(--options ties=explicit bars=true tempo=log50_tuned constrained) # tokenizer=ties
all=(--sides tsd remi tsd_reminded remi_reminded beat pianolm-codebook
  --options constrained "${explicit[@]}" "${ties[@]}" --options ties=implicit constrained)
muon=(--optimizer muon --learning-rates 0.02)

# 60,000 notes: 2 minutes a job. 20 jobs, 40 minutes; 27 jobs, 60 minutes
if wanted rates-adamw; then run --notes 60000 "${all[@]}" --learning-rates 1e-3 2e-3 4e-3; fi
if wanted rates-muon; then run --notes 60000 "${all[@]}" --optimizer muon --learning-rates 0.01 0.02 0.04; fi
# 500,000 notes: 12 minutes a job. 6 jobs, 70 minutes; 9 jobs, 110 minutes
if wanted long-adamw; then run --notes 500000 "${all[@]}" --learning-rates 2e-3; fi
if wanted long-muon; then run --notes 500000 "${all[@]}" "${muon[@]}"; fi
# The two best of pianolm and of MidiTok, with the best optimizer: 10 jobs of 60,000 and 8 of 500,000 notes, 120 minutes
if wanted seeds; then
  best=(--sides remi remi_reminded pianolm-codebook "${explicit[@]}" "${ties[@]}" --seeds 0 1 2)
  run --notes 500000 "${best[@]}" "${muon[@]}"
  run --notes 60000 "${best[@]}" "${muon[@]}"
  run --notes 60000 --sides beat --seeds 0 1 2 "${muon[@]}"
fi
# MidiTok's sides trained with token masks: 4 jobs, 8 minutes
if wanted constrained; then
  run --notes 60000 --sides tsd remi tsd_reminded remi_reminded --constrained "${muon[@]}"
fi
