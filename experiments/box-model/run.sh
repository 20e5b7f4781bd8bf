#!/usr/bin/env bash
# Trains the model in the box, packs it and measures it; about an hour and a half on one core with bf16 instructions.
# POP909=PATH and SCORES=PATH: the data sets. RUNS=DIR keeps the runs, so that an interrupted one continues. The packed
# model lies in RUNS/pop; copy it to pianolm/models/pop to let it come along. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/box-model}
data=(data.parts.pop909="${POP909:?set POP909 to the data set}" data.parts.scores="${SCORES:?set SCORES to the data set}")
settings=(experiment=box "${data[@]}" "${paths[@]}" hardware=cpu hardware.precision=bf16-mixed loader.val_tokens=32768)

python -m pianolm.run stage=finetune "${settings[@]}" hydra.run.dir="$runs/first"
# goes on from these weights, at the full rate once more
python -m pianolm.run stage=finetune "${settings[@]}" upstream.base="$(artifact_of "$runs/first")" \
  finetune.trainer.max_steps="${MORE_STEPS:-1300}" hydra.run.dir="$runs/second"
python "$here/pack.py" "$(artifact_of "$runs/second")" "$artifacts" "$runs/pop"
songs=(data=pop909 data.root="$POP909" "${paths[@]}" upstream.model="$runs/pop" hardware=cpu)
python -m pianolm.run stage=evaluate evaluate=lm "${songs[@]}" hydra.run.dir="$runs/lm"
python -m pianolm.run stage=evaluate evaluate=samples generate=plain "${songs[@]}" hydra.run.dir="$runs/plain"
python -m pianolm.run stage=evaluate evaluate=samples "${songs[@]}" hydra.run.dir="$runs/samples"
python "$here/report.py" "$runs" "$out"
