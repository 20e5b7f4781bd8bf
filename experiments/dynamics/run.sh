#!/usr/bin/env bash
# Velocities for the first 64 beats of 32 validation performances of ASAP: the most likely ones, and drawn ones.
# Writes results.json, the table of README.md and pieces.png. ASAP=PATH says where the data set lies; MODEL=DIR is what
# stage=finetune published, without it the tiny model of experiments/learning is trained first where it is not there yet.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" logger=csv hardware=cpu
  hardware.precision=bf16-mixed model=tiny model.embedding=table paths.artifacts="${ARTIFACTS:-artifacts}"
  paths.work="${ARTIFACTS:-artifacts}/.work" trainer.val_every=49 trainer.max_steps=489
  ${MODEL:+upstream.model="$MODEL"})
for temperature in 0 1; do
  python -m pianolm.run stage=evaluate evaluate=dynamics "${settings[@]}" evaluate.pieces=32 evaluate.beats=64 \
    evaluate.temperature=$temperature hydra.run.dir="$out/$temperature"
done
python "$here/collect.py" "$out" "$here"
