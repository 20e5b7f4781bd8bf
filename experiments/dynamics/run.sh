#!/usr/bin/env bash
# Predicts the velocities of the first 64 beats of 32 ASAP validation performances, most likely and sampled.
# ASAP=PATH: the folder with metadata.csv. MODEL=DIR: artifact of stage=finetune; without it the tiny model of
# experiments/learning is trained first. Writes to OUT=PATH (default: this folder). Further arguments are overrides.
source "$(dirname "$0")/../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" "${paths[@]}" hardware=cpu
  hardware.precision=bf16-mixed model=tiny model.embedding=table trainer.val_check_interval=49 trainer.max_steps=489
  ${MODEL:+upstream.model="$MODEL"})
for temperature in 0 1; do
  python -m pianolm.run stage=evaluate evaluate=dynamics "${settings[@]}" evaluate.pieces=32 evaluate.beats=64 \
    evaluate.temperature=$temperature hydra.run.dir="$runs/$temperature" "$@"
done
python "$here/report.py" "$runs" "$out"
