#!/usr/bin/env bash
# Trains model=tiny on ASAP without velocities, the pedal ignored and notes extended by it: equal notes, so the second
# has more tokens and steps. Scores both on the same validation performances; about ten minutes on an idle core. ASAP=PATH: the
# folder with metadata.csv. RUNS=DIR keeps the runs, so that an interrupted one continues. Writes to OUT=PATH (default: this
# folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/pedal}
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" data.limit=60 "${paths[@]}"
  hardware=cpu hardware.precision=bf16-mixed tokenizer=ties tokenizer.mode=base loss.constrained=true model=tiny
  loader.val_tokens=16384)

for pedal in ignore:200 extend:282; do # 4.08 / 2.89 tokens a note
  run="$runs/${pedal%:*}" steps=${pedal#*:}
  with=("${settings[@]}" data.pedal="${pedal%:*}")
  python -m pianolm.run stage=base "${with[@]}" trainer.max_steps="$steps" trainer.val_check_interval="$steps" \
    hydra.run.dir="$run"
  python -m pianolm.run stage=evaluate evaluate=lm upstream.model="$(artifact_of "$run")" "${with[@]}" \
    hydra.run.dir="$run/evaluate"
  python -m pianolm.run stage=evaluate evaluate=roundtrip upstream.tokenizer="$(artifact_of "$run")" "${with[@]}" \
    hydra.run.dir="$run/roundtrip"
done
python "$here/report.py" "$runs" "$out"
