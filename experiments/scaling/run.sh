#!/usr/bin/env bash
# Trains models of four sizes on three numbers of notes of POP909, each with one core, and fits a curve to bits a note:
# about five hours of one core in all where it does 1,350 tokens a second with 3.1 million parameters (minutes of the
# trainings of 0.3, 1.1, 3.1 and 6.0 million parameters: 1, 2, 6, 10 on 100,000 notes, 4, 6, 20, 35 on 350,000, 13, 20, 70,
# 120 on all; two hours in all in bf16 at 3,300), and a quarter of an hour for the scores. POP909=PATH: the folder that holds
# POP909/. RUNS=DIR keeps the runs, so that points already measured are not repeated. ONLY="0.3M/100000 6.0M/all": only these.
# Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/scaling}
points=${ONLY:-$(python -c 'from experiments.scaling.point import POINTS; print(*POINTS)')}
for point in $points; do
  python "$here/point.py" "$point" --pop909 "${POP909:?set POP909 to the folder that holds POP909/}" \
    --artifacts "$artifacts" --runs "$runs"
done
python "$here/report.py" "$runs" "$out"
