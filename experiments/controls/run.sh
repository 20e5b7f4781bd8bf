#!/usr/bin/env bash
# Asks a model for each level of loudness and of density and measures what comes: 200 pieces of each that it begins by
# itself, and 200 that continue the openings of 25 validation songs of POP909, beside 200 of each for which nothing is
# asked. POP909=PATH: the folder that holds POP909/. MODEL=DIR (default: pop). PIECES: of each (default: 200).
# With GUIDANCE=1 or more a MODEL that was trained with controls is only told the levels. Writes to OUT=PATH (default: this
# folder).
source "$(dirname "$0")/../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
python -m pianolm.run stage=prepare data=pop909 data.root="${POP909:?set POP909 to the folder that holds POP909/}" \
  "${paths[@]}" hydra.run.dir="$runs/prepare"
python "$here/obey.py" "${MODEL:-pop}" "$(artifact_of "$runs/prepare")" "$out/results.jsonl" \
  "${PIECES:-200}" ${GUIDANCE:+"$GUIDANCE"}
python "$here/report.py" "$out"
