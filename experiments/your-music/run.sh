#!/usr/bin/env bash
# Fine-tunes the bundled model on a folder of 100 performances and scores it before and after: about a quarter of an hour of
# one core in bf16. ASAP=PATH: the folder with metadata.csv. RUNS=DIR keeps the runs, so that an interrupted one continues.
# Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/your-music}
python "$here/hundred.py" "${ASAP:?set ASAP to the folder with metadata.csv}" "$runs/folder"
data=(data=folder data.root="$runs/folder" data.test_fraction=0)
settings=("${paths[@]}" compute.threads=1)

score() { # NAME MODEL: bits a note of the validation pieces
  python -m pianolm.run stage=evaluate evaluate=lm upstream.model="$2" "${data[@]}" "${settings[@]}" hydra.run.dir="$runs/$1/lm"
}
train() { # NAME key=value …
  python -m pianolm.run stage=finetune upstream.base=pop "${data[@]}" "${settings[@]}" optimizer.lr=1e-3 \
    trainer.max_steps=400 trainer.val_check_interval=100 "${@:2}" hydra.run.dir="$runs/$1"
  score "$1" "$(artifact_of "$runs/$1")"
}

score pop pop
train finetuned
python "$here/report.py" "$runs" "$out"
