#!/usr/bin/env bash
# Trains the codecs that README.md compares and measures them. ASAP=PATH, ACPAS=PATH, POP909=PATH: the data sets;
# RUNS=DIR (default: outputs/velvq-experiment) keeps the runs, so that an interrupted one continues. Writes to OUT=PATH
# (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/velvq-experiment}
settings=(hardware=cpu compute.threads=1 "${paths[@]}")

cells() { # NAME ROOT: the cell store of a data set
  python -m pianolm.run stage=prepare data="$1" data.root="$2" "${settings[@]}" hydra.run.dir="$runs/cells/$1" >&2
  artifact_of "$runs/cells/$1"
}
sweep() { # NAME STORE key=value …: one codec for every combination of values
  python -m pianolm.run -m stage=velvq upstream.cells="$2" "${settings[@]}" hydra.sweep.dir="$runs/sweeps/$1" "${@:3}"
}
asap=$(cells asap "${ASAP:?set ASAP to the folder with metadata.csv}")
acpas=$(cells acpas "${ACPAS:?set ACPAS to the folder with metadata_S.csv}")
pop909=$(cells pop909 "${POP909:?set POP909 to the folder that holds POP909/}")

sweep seed "$asap" velvq=segment velvq.seed=0,1,2
sweep codebook_size "$asap" velvq=segment velvq.codebook_size=128,256,512,1024
sweep max_segments "$asap" velvq=segment velvq.max_segments=2,3,4,6,8
sweep form "$asap" velvq=frame
sweep latent "$asap" velvq=frame velvq.max_steps=1000 velvq.val_every=500 velvq.latent=2,8,32
sweep acpas "$acpas" velvq=segment
sweep pop909 "$pop909" velvq=segment

codec=$(artifact_of "$runs/sweeps/seed/0")
measure() { # NAME SCRIPT argument …: keeps what a script prints
  mkdir -p "$runs/measured"
  python "$here/$2.py" "${@:3}" >"$runs/measured/$1.json"
}
measure bounds bounds "$asap"
measure transfer_acpas transfer "$codec" "$acpas"
measure transfer_pop909 transfer "$codec" "$pop909"
measure shift shift "$codec" "$asap"
measure loading loading "$asap"
measure cache_20m cache_20m "$asap"
python "$here/report.py" "$runs" "$out"
