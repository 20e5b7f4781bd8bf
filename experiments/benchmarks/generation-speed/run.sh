#!/usr/bin/env bash
# Measures generation beside transformers, with one and with two threads, on an otherwise idle machine. Writes to OUT=PATH
# (default: this folder). Further arguments go to `bench.py measure`, such as --repeats 1 --tokens 64 for a quick look.
source "$(dirname "$0")/../../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
python -m pianolm.run stage=tokenize data=demo velvq.max_steps=100 velvq.val_every=100 compute.threads=1 "${paths[@]}" \
  hydra.run.dir="$runs/tokenize"
for threads in 1 2; do
  OMP_NUM_THREADS=$threads python "$here/bench.py" measure --tokenized "$(artifact_of "$runs/tokenize")" \
    --out "$runs/$threads.json" "$@"
done
python "$here/bench.py" report "$runs"/[12].json --out "$out"
