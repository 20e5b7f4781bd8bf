#!/usr/bin/env bash
# Trains the dynamics model on ASAP and on POP909, packs the second one for the box, and measures both, ridge regressions,
# constants and language models on ASAP's validation performances: the first 64 beats of 32 of them, and all as a whole.
# ASAP=PATH and POP909=PATH: the data sets. RUNS=DIR keeps the runs, so that an interrupted one continues; STEPS and
# BOX_STEPS change the trainings, MODEL=DIR is an artifact of stage finetune in place of the tiny model of experiments/learning, LM=no leaves
# the language models out: their rows stay. The packed model lies in RUNS/dynamics; copy it to pianolm/models/dynamics to let
# it come along. The ridge regressions need the extra bench. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/dynamics}
asap=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}")
pop909=(data=pop909 data.root="${POP909:?set POP909 to the data set}")
settings=("${paths[@]}" hardware=cpu compute.threads=1 generate.page=false)

train() { # NAME key=value …
  python -m pianolm.run stage=dynamics "${@:2}" "${settings[@]}" hydra.run.dir="$runs/$1"
}
measure() { # NAME [key=value …]
  [ -f "$runs/$1/metrics.json" ] || python -m pianolm.run stage=evaluate evaluate=dynamics evaluate.temperature=0 \
    "${settings[@]}" hydra.run.dir="$runs/$1" "${@:2}"
}
train train-asap "${asap[@]}" dynamics.max_steps="${STEPS:-3000}" trainer.val_check_interval=250
train train-pop909 "${pop909[@]}" dynamics.max_steps="${BOX_STEPS:-1200}" trainer.val_check_interval=200
model=$(artifact_of "$runs/train-asap")
box=$runs/dynamics
[ -d "$box" ] || python "$here/pack.py" "$(artifact_of "$runs/train-pop909")" "$artifacts" "$box"

opening=("${asap[@]}" evaluate.pieces=32 evaluate.beats=64)
measure untold "${opening[@]}" upstream.model="$model"
measure told "${opening[@]}" upstream.model="$model" evaluate.told_median=true
measure told-take "${opening[@]}" upstream.model="$model" evaluate.told_median=true evaluate.temperature=1
measure box "${opening[@]}" upstream.model="$box"
measure box-told "${opening[@]}" upstream.model="$box" evaluate.told_median=true
measure untold-whole "${asap[@]}" upstream.model="$model"
measure told-whole "${asap[@]}" upstream.model="$model" evaluate.told_median=true
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
cells_of() { # ARTIFACT: that of stage prepare which it learned from
  echo "$artifacts/prepare/$(python -c 'import json, sys; print(json.load(open(sys.argv[1] + "/artifact.json"))["upstream"]["cells"])' "$1")"
}
[ -f "$runs/ridge-squares-told-strict/metrics.json" ] ||
  python "$here/baselines.py" "$(cells_of "$model")" "$model" "$(cells_of "$box")" "$runs"
python "$here/report.py" "$runs" "$out"
