#!/usr/bin/env bash
# Builds what is missing, measures, writes results.json and the tables of README.md beside this file.
# ASAP=PATH says where the data set lies; ARTIFACTS=PATH (default: artifacts) where artifacts are kept and looked for.
# What follows on the command line goes to bench.py: --files 20 --repeats 1 for a quick look.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
artifacts=${ARTIFACTS:-artifacts}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" compute.threads=1 logger=csv
  paths.artifacts="$artifacts" paths.work="$artifacts/.work" velvq.max_steps=300 velvq.val_every=150)

built() { # NAME key=value …: the directory of the artifact that a stage publishes
  python -m pianolm.run "${settings[@]}" "${@:2}" hydra.run.dir="$scratch/$1" >&2
  python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$scratch/$1/metrics.json"
}
cells=$(built cells stage=prepare)
base=$(built base stage=tokenize tokenizer=base)
velocity=$(built velocity stage=tokenize tokenizer=velocity)

python "$here/fit.py" make "$cells" "$scratch/cells.npz"
python "$here/fit.py" fit "$scratch/cells.npz" >"$scratch/fit.json"
python "$here/bench.py" --asap "$ASAP" --base "$base" --velocity "$velocity" --fit "$scratch/fit.json" \
  --out "$here/results.json" "$@"
