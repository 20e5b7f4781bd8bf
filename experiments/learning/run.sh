#!/usr/bin/env bash
# Trains model=tiny on ASAP, two million tokens a run: with and without transposition, fine-tuned and from scratch; about
# forty minutes on two idle cores. ASAP=PATH: the folder with metadata.csv. RUNS=DIR keeps the runs, so that an interrupted
# one continues. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/learning}
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" "${paths[@]}" hardware=cpu
  hardware.precision=bf16-mixed model=tiny model.embedding=table trainer.val_check_interval=49 trainer.max_steps=489)

train() { # NAME key=value …: trains a model and scores every token of the validation split
  python -m pianolm.run "${settings[@]}" hydra.run.dir="$runs/$1" "${@:2}"
  python -m pianolm.run stage=evaluate evaluate=lm upstream.model="$(artifact_of "$runs/$1")" "${settings[@]}" \
    "${@:3}" hydra.run.dir="$runs/$1/evaluate"
}

train base stage=base tokenizer=base
train base_transposed stage=base tokenizer=base loader.transpose=5
train finetune stage=finetune
train scratch stage=finetune finetune.from_scratch=true
train scratch_double stage=finetune finetune.from_scratch=true trainer.max_steps=978 trainer.val_check_interval=98
python "$here/report.py" "$runs" "$out"
