#!/usr/bin/env bash
# Trains a small model on POP909 with the recipe of the model in the box and with single changes of it, MINUTES (15) of one
# core each: four hours in all, on a machine that does nothing else. POP909=PATH: the folder that holds POP909/. RUNS=DIR
# keeps the runs, so that trials already measured are not repeated. ONLY="reference adamw-4e-3": only these.
# Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/recipe}
trials=${ONLY:-$(python -c 'from experiments.recipe.trial import TRIALS; print(*TRIALS)')}
for trial in $trials; do
  python "$here/trial.py" "$trial" --minutes "${MINUTES:-15}" --pop909 "${POP909:?set POP909 to the folder that holds POP909/}" \
    --artifacts "$artifacts" --runs "$runs"
done
python "$here/report.py" "$runs" "$out"
