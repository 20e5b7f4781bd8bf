#!/usr/bin/env bash
# model=tiny on ASAP, two million tokens a run: with and without transposition, fine-tuned and from scratch.
# Writes results.json, the table of README.md and curves.png. ASAP=PATH says where the data set lies; RUNS=DIR keeps what is
# trained, so that a broken run goes on. About forty minutes on two idle cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runs=${RUNS:-outputs/learning}
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" logger=csv hardware=cpu
  hardware.precision=bf16-mixed model=tiny model.embedding=table paths.artifacts="${ARTIFACTS:-artifacts}"
  paths.work="${ARTIFACTS:-artifacts}/.work" trainer.val_every=49 trainer.max_steps=489)

train() { # name, then overrides: trains and scores every token of the validation split
  python -m pianolm.run "${settings[@]}" hydra.run.dir="$runs/$1" "${@:2}"
  model=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$runs/$1/metrics.json")
  python -m pianolm.run stage=evaluate evaluate=lm upstream.model="$model" "${settings[@]}" "${@:3}" \
    hydra.run.dir="$runs/$1/evaluate"
}

train base stage=base tokenizer=base
train base_transposed stage=base tokenizer=base trainer.transpose=5
train finetune stage=finetune
train scratch stage=finetune finetune.from_scratch=true
train scratch_double stage=finetune finetune.from_scratch=true trainer.max_steps=978 trainer.val_every=98
python "$here/table.py" --runs "$runs" --out "$here"
