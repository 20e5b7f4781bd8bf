#!/usr/bin/env bash
# Trains the dynamics model with three seeds on ASAP and with one on POP909, packs the last one to be bundled, and measures them,
# ridge regressions, constants and language models on ASAP's validation performances: the first 64 beats of 32 of them, and
# all as a whole. Two and a half hours of one core to train, a quarter of an hour to measure.
# ASAP=PATH and POP909=PATH: the data sets. RUNS=DIR keeps the runs, so that an interrupted one continues; STEPS changes the
# trainings, SEEDS="0 1" trains fewer, counted from 0, MODEL=DIR is an artifact of stage finetune in place of the tiny model of
# experiments/learning, LM=no leaves the language models out: their rows stay. The packed model lies in RUNS/dynamics; copy it to
# pianolm/models/dynamics to bundle it. The ridge regressions need the extra bench. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/dynamics}
asap=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}")
pop909=(data=pop909 data.root="${POP909:?set POP909 to the data set}")
settings=("${paths[@]}" hardware=cpu compute.threads=1 generate.page=false)
steps=${STEPS:-3000}

train() { # NAME key=value …
  python -m pianolm.run stage=dynamics dynamics.max_steps="$steps" trainer.val_check_interval=250 "${@:2}" "${settings[@]}" \
    hydra.run.dir="$runs/$1"
}
measure() { # NAME [key=value …]
  [ -f "$runs/$1/metrics.json" ] || python -m pianolm.run stage=evaluate evaluate=dynamics evaluate.temperature=0 \
    "${settings[@]}" hydra.run.dir="$runs/$1" "${@:2}"
}
cells_of() { # ARTIFACT: that of stage prepare which it learned from
  echo "$artifacts/prepare/$(python -c 'import json, sys; print(json.load(open(sys.argv[1] + "/artifact.json"))["upstream"]["cells"])' "$1")"
}

opening=("${asap[@]}" evaluate.pieces=32 evaluate.beats=64)
models=()
for seed in ${SEEDS:-0 1 2}; do
  train "train-asap-$seed" "${asap[@]}" seed="$seed"
  model=$(artifact_of "$runs/train-asap-$seed")
  models+=("$model")
  ending=-seed$seed
  [ "$seed" != 0 ] || ending=
  measure "untold$ending" "${opening[@]}" upstream.model="$model"
  measure "told$ending" "${opening[@]}" upstream.model="$model" evaluate.told_median=true
  measure "untold$ending-whole" "${asap[@]}" upstream.model="$model"
  measure "told$ending-whole" "${asap[@]}" upstream.model="$model" evaluate.told_median=true
done
measure told-take "${opening[@]}" upstream.model="${models[0]}" evaluate.told_median=true evaluate.temperature=1

train train-pop909 "${pop909[@]}"
songs=$(artifact_of "$runs/train-pop909")
box=$runs/dynamics
[ -d "$box" ] || python "$here/pack.py" "$songs" "$artifacts" "$box"
measure box "${opening[@]}" upstream.model="$box"
measure box-told "${opening[@]}" upstream.model="$box" evaluate.told_median=true
measure box-pop909 "${pop909[@]}" upstream.model="$box"
measure box-told-pop909 "${pop909[@]}" upstream.model="$box" evaluate.told_median=true
# the page: ten songs flat, rendered and as they were played
measure page "${pop909[@]}" upstream.model="$box" evaluate.pieces=10 evaluate.beats=64 generate.page=true

if [ "${LM:-yes}" != no ]; then
  tiny=("${opening[@]}" hardware.precision=bf16-mixed model=tiny model.embedding=table trainer.val_check_interval=49
    trainer.max_steps=489)
  if [ -z "${MODEL:-}" ]; then
    python -m pianolm.run stage=finetune "${tiny[@]}" "${settings[@]}" hydra.run.dir="$runs/train-tiny"
    MODEL=$(artifact_of "$runs/train-tiny")
  fi
  measure tiny "${opening[@]}" upstream.model="$MODEL"
  measure tiny-drawn "${opening[@]}" upstream.model="$MODEL" evaluate.temperature=1
  measure pop "${opening[@]}" upstream.model=pop
fi
{ [ -f "$runs/ridge-squares-told-strict-pop909/metrics.json" ] && [ -f "$runs/told-strict$ending/metrics.json" ]; } ||
  python "$here/baselines.py" "$(cells_of "${models[0]}")" "$(cells_of "$songs")" "$runs" "$box" "${models[@]}"
python "$here/report.py" "$runs" "$out"
