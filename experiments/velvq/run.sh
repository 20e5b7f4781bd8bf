#!/usr/bin/env bash
# Trains the codecs that README.md compares, measures them, writes results.json and the tables of README.md.
# ASAP=PATH, ACPAS=PATH and POP909=PATH say where the data sets lie; ARTIFACTS=PATH (default: artifacts) where artifacts
# are kept and looked for. What is there already is not trained again, so that a run that was stopped goes on.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
artifacts=${ARTIFACTS:-artifacts}
out=${OUT:-outputs/velvq-experiment}
settings=(hardware=cpu compute.threads=1 logger=csv paths.artifacts="$artifacts" paths.work="$artifacts/.work")

published() { # METRICS.json: the directory of the artifact it is about
  python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$1"
}
cells() { # NAME ROOT: the cell store of a data set
  python -m pianolm.run stage=prepare data="$1" data.root="$2" "${settings[@]}" hydra.run.dir="$out/cells/$1" >&2
  published "$out/cells/$1/metrics.json"
}
sweep() { # NAME STORE key=value …: one codec for every combination of values
  python -m pianolm.run -m stage=velvq upstream.cells="$2" "${settings[@]}" hydra.sweep.dir="$out/sweeps/$1" "${@:3}"
}
asap=$(cells asap "${ASAP:?set ASAP to the folder with metadata.csv}")
acpas=$(cells acpas "${ACPAS:?set ACPAS to the folder with metadata_S.csv}")
pop909=$(cells pop909 "${POP909:?set POP909 to the folder that holds POP909/}")

sweep seed "$asap" velvq=segment velvq.seed=0,1,2
sweep codebook_size "$asap" velvq=segment velvq.codebook_size=128,256,512,1024
sweep error "$asap" velvq=segment velvq.distance=absolute,squared velvq.weighting=frames,equal
sweep slots "$asap" velvq=segment velvq.slots=2,3,4,6,8
sweep onset "$asap" velvq=frame velvq.see_onset=false,true
sweep latent "$asap" velvq=frame velvq.max_steps=1000 velvq.val_every=500 velvq.latent=2,8,32
sweep acpas "$acpas" velvq=segment
sweep pop909 "$pop909" velvq=segment

codec=$(published "$out/sweeps/seed/0/metrics.json")
measure() { # NAME SCRIPT argument …: what a script prints
  mkdir -p "$out/measured"
  python "$here/$2.py" "${@:3}" >"$out/measured/$1.json"
}
measure bounds bounds "$asap"
measure transfer_acpas transfer "$codec" "$acpas"
measure transfer_pop909 transfer "$codec" "$pop909"
measure shift shift "$codec" "$asap"
measure loading loading "$asap"
measure cache_20m cache_20m "$asap"
python "$here/collect.py" "$out"
