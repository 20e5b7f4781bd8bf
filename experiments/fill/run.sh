#!/usr/bin/env bash
# Fills gaps of POP909's validation songs, for three drawings of the gaps: bits of what stood there given both sides and
# given the past, and statistics of what a model writes; then checks 1,000 fills of random gaps note for note.
# POP909=PATH: the folder that holds POP909/. MODEL=DIR (default: pop). Twenty minutes on one core. RUNS=DIR keeps the runs.
# Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/fill}
songs=(data=pop909 data.root="${POP909:?set POP909 to the folder that holds POP909/}" "${paths[@]}" hardware=cpu)
measure() { # BEATS SEED PIECES
  local run="$runs/gap-$1-$2"
  [ -f "$run/metrics.json" ] || python -m pianolm.run stage=evaluate evaluate=fill "${songs[@]}" \
    upstream.model="${MODEL:-pop}" evaluate.gap_beats="$1" seed="$2" evaluate.pieces="$3" generate.audio=false \
    hydra.run.dir="$run"
}
for seed in 0 1 2; do
  measure 4 "$seed" 40
  measure 16 "$seed" 20
done
python -m pianolm.run stage=prepare "${songs[@]}" hydra.run.dir="$runs/prepare"
[ -f "$runs/many.json" ] || python "$here/many.py" "${MODEL:-pop}" "$(artifact_of "$runs/prepare")" "$runs/many.json"
python "$here/report.py" "$runs" "$out"
