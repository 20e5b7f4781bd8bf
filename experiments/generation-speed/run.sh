#!/usr/bin/env bash
# Builds a tokenizer from composed pieces, measures, writes results.json and the tables of README.md beside this file.
# Best on an otherwise idle machine. ARTIFACTS=PATH (default: artifacts): where artifacts are kept and looked for.
# What follows on the command line goes to bench.py: --repeats 1 --tokens 64 for a quick look.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
artifacts=${ARTIFACTS:-artifacts}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python -m pianolm.run stage=tokenize data=demo velvq.max_steps=100 velvq.val_every=100 compute.threads=1 logger=csv \
  paths.artifacts="$artifacts" paths.work="$artifacts/.work" hydra.run.dir="$scratch/tokenize"
tokens=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$scratch/tokenize/metrics.json")
for threads in 1 2; do
  OMP_NUM_THREADS=$threads python "$here/bench.py" measure --tokenized "$tokens" --out "$scratch/$threads.json" "$@"
done
python "$here/bench.py" report "$scratch"/[12].json --into "$here"
