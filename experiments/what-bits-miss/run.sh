#!/usr/bin/env bash
# Measures human playing, altered human playing and continuations by three models, and tells which measure tells which of
# them from human playing. POP909=PATH: the folder that holds POP909/. MODELS="DIR DIR …" (default: pop) continue the
# openings, each named by its folder; SCORER=DIR (default: pop) gives the bits. A quarter of an hour on one core. Writes to OUT=PATH
# (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
python -m pianolm.run stage=prepare data=pop909 data.root="${POP909:?set POP909 to the folder that holds POP909/}" \
  "${paths[@]}" hydra.run.dir="$runs/prepare"
# shellcheck disable=SC2086  # several models
python "$here/measure.py" "$(artifact_of "$runs/prepare")" "$out/results.jsonl" "${SCORER:-pop}" ${MODELS:-pop}
python "$here/report.py" "$out"
