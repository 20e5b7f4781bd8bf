#!/usr/bin/env bash
# Builds a tokenizer from ASAP's training split and measures the round trip of the validation performances of three data
# sets. DATA=PATH: the folder that holds asap, acpas and pop909. Writes results.jsonl, metrics.json and README.md to
# OUT=PATH (default: this folder). Further arguments are overrides of every run.
source "$(dirname "$0")/../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
: "${DATA:?set DATA to the folder that holds asap, acpas and pop909}"
python -m pianolm.run stage=tokenize data=asap data.root="$DATA/asap" "${paths[@]}" hydra.run.dir="$runs/tokenize" "$@"
tokenizer=$(artifact_of "$runs/tokenize")
for name in asap acpas pop909; do
  python -m pianolm.run stage=evaluate evaluate=roundtrip data=$name data.root="$DATA/$name" \
    upstream.tokenizer="$tokenizer" "${paths[@]}" hydra.run.dir="$runs/$name" "$@"
done
python "$here/report.py" "$runs" "$tokenizer" "$out"
