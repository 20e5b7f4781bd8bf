#!/usr/bin/env bash
# Tokenizer from ASAP's training part; what comes back of the validation performances of three data sets.
# DATA=PATH says where the folders asap, acpas and pop909 lie. Writes results.json and the table of README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
: "${DATA:?set DATA to the folder that holds asap, acpas and pop909}"
settings=(logger=csv paths.artifacts="${ARTIFACTS:-artifacts}" paths.work="${ARTIFACTS:-artifacts}/.work")
python -m pianolm.run stage=tokenize data=asap data.root="$DATA/asap" "${settings[@]}" hydra.run.dir="$out/tokenize"
tokenizer=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$out/tokenize/metrics.json")
for name in asap acpas pop909; do
  python -m pianolm.run stage=evaluate evaluate=roundtrip data=$name data.root="$DATA/$name" \
    upstream.tokenizer="$tokenizer" "${settings[@]}" hydra.run.dir="$out/$name"
done
python "$here/collect.py" "$out" "$tokenizer" "$here"
