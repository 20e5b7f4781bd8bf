#!/usr/bin/env bash
# Measures cost and errors of the tempo tokens of validation performances of two data sets, without and with a tuning.
# DATA=PATH: the folder that holds pop909 and asap. Writes results.jsonl, metrics.json, README.md and tempo.png to
# OUT=PATH (default: this folder). Further arguments are overrides of stage=prepare.
source "$(dirname "$0")/../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
: "${DATA:?set DATA to the folder that holds pop909 and asap}"
stores=()
for name in pop909 asap; do
  python -m pianolm.run stage=prepare data=$name data.root="$DATA/$name" "${paths[@]}" hydra.run.dir="$runs/$name" "$@"
  stores+=("$name=$(artifact_of "$runs/$name")")
done
python "$here/measure.py" "$out" "${stores[@]}"
python "$here/report.py" "$out"
