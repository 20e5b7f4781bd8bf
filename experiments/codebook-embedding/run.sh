#!/usr/bin/env bash
# Trains every variant that README.md lists on one thread and rewrites results.json, bits.png and the table of README.md.
# ASAP=PATH says where the data set lies; OUT=PATH (default: outputs/codebook-embedding) where results are gathered: what
# is there already is not trained again.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-outputs/codebook-embedding}
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" hardware=cpu compute.threads=1 logger=csv)

tokens() { # MODE: the token store of a mode
  python -m pianolm.run stage=tokenize tokenizer="$1" "${settings[@]}" hydra.run.dir="$out/$1" >&2
  python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$out/$1/metrics.json"
}
python "$here/trial.py" "$(tokens base)" "$(tokens velocity)" "$out/results.jsonl" "$@"
python "$here/show.py" "$out/results.jsonl"
