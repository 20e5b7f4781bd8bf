#!/usr/bin/env bash
# Step time of the stage, of a bare loop and of a naive one; writes results.json and the tables of README.md.
# ASAP=PATH says where the data set lies. On an otherwise idle machine; about ten minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" logger=csv hardware=cpu
  paths.artifacts="${ARTIFACTS:-artifacts}" paths.work="${ARTIFACTS:-artifacts}/.work" trainer.val_every=100000
  trainer.val_tokens=2048 model.embedding=table)
bench() { python "$here/bench.py" --out "$here/results.json" "$@" "${settings[@]}"; }
rm -f "$here/results.json"
bench --name "tiny, 2 threads" --steps 40 --repeats 2 model=tiny compute.threads=2
bench --name "tiny, 2 threads, bf16" --steps 40 --repeats 2 model=tiny compute.threads=2 hardware.precision=bf16-mixed
bench --name "small, 2 threads" --steps 13 --repeats 1 model=small compute.threads=2
