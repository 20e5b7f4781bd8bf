#!/usr/bin/env bash
# Measures encoding and decoding beside MidiTok, on an otherwise idle machine. ASAP=PATH: the folder with metadata.csv. Needs
# MidiTok: pip install --constraint constraints.txt --editable '.[bench]'. Writes to OUT=PATH (default: this folder).
# Further arguments go to bench.py, such as --files 20 --repeats 1 for a quick look.
source "$(dirname "$0")/../../setup.sh"
export OMP_NUM_THREADS=1
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" compute.threads=1 "${paths[@]}"
  velvq.max_steps=300 velvq.val_every=150)

built() { # NAME key=value …: the artifact that a stage publishes
  python -m pianolm.run "${settings[@]}" "${@:2}" hydra.run.dir="$runs/$1" >&2
  artifact_of "$runs/$1"
}
cells=$(built cells stage=prepare)
base=$(built base stage=tokenize tokenizer=base)
velocity=$(built velocity stage=tokenize tokenizer=velocity)

python "$here/fit.py" make "$cells" "$runs/cells.npz"
python "$here/fit.py" fit "$runs/cells.npz" >"$runs/fit.json"
python "$here/bench.py" --asap "$ASAP" --base "$base" --velocity "$velocity" --fit "$runs/fit.json" --out "$out" "$@"
