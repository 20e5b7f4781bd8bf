#!/usr/bin/env bash
# Step time of the stage, of a bare loop and of a naive one, on an otherwise idle machine; about a quarter of an hour on two cores.
# ASAP=PATH: the folder with metadata.csv. Writes to OUT=PATH (default: this folder). Further arguments go to bench.py, such
# as --steps 10 for a quick look.
source "$(dirname "$0")/../../setup.sh"
unset OMP_NUM_THREADS # compute.threads decides
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" hardware=cpu model.embedding=table
  trainer.val_check_interval=100000 loader.val_tokens=2048 "${paths[@]}")
bench() { python "$here/bench.py" --out "$out" "$@" "${settings[@]}"; }
bench --name "tiny, 2 threads" --steps 40 --repeats 2 model=tiny compute.threads=2 "$@"
bench --name "tiny, 2 threads, bf16" --steps 40 --repeats 2 model=tiny compute.threads=2 hardware.precision=bf16-mixed "$@"
bench --name "small, 2 threads" --steps 13 --repeats 1 model=small compute.threads=2 "$@"
python "$here/optimizers.py" "$out"
python "$here/spans.py" "$out"
python "$here/variants.py" "$out"
