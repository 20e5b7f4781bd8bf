#!/usr/bin/env bash
# Runs the whole chain on ASAP with a tiny model in a few minutes. ASAP=PATH: the folder with metadata.csv. Writes
# results.jsonl, metrics.json and README.md to OUT=PATH (default: this folder). Further arguments are overrides.
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/first-chain}
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" model=tiny trainer.max_steps=300
  loader.batch_tokens=4096 velvq.max_steps=600 velvq.val_every=300 compute.threads=1 "${paths[@]}")
for stage in velvq base finetune generate; do
  python -m pianolm.run stage="$stage" "${settings[@]}" hydra.run.dir="$runs/$stage" "$@"
done
python "$here/report.py" "$runs" "$out"
