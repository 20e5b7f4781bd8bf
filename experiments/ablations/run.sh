#!/usr/bin/env bash
# Runs the sweeps conf/experiment/ablation_*.yaml on POP909: codebooks in minutes, then nine trainings of a small model, about
# five minutes of a core each, and three velocity codecs. POP909=PATH: the folder that holds POP909/. RUNS=DIR keeps the
# runs, so that a sweep that was interrupted goes on; ONLY="ties tempo" trains only these. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/ablations}
settings=(data=pop909 data.root="${POP909:?set POP909 to the folder that holds POP909/}" "${paths[@]}" hardware=cpu compute.threads=1)

sweep() { # NAME STAGE
  python -m pianolm.run -m experiment="ablation_$1" stage="$2" "${settings[@]}" hydra.sweep.dir="$runs/$1"
}

sweep codebook codebook
for name in ${ONLY:-ties tempo velocity warm_start}; do sweep "$name" finetune; done
python "$here/report.py" "$runs" "$out"
