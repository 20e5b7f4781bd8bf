#!/usr/bin/env bash
# Finds works by notes in ASAP and ACPAS, and counts leaks. ASAP, ACPAS, POP909, SCORES: folders of the data sets. RUNS=DIR
# keeps the rows, so that an interrupted run continues. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
: "${ASAP:?set ASAP to the folder with metadata.csv}" "${ACPAS:?set ACPAS to the folder with distinct_pieces.csv}"
: "${POP909:?set POP909 to its folder}" "${SCORES:?set SCORES to the folder with metadata.csv}"
runs=${RUNS:-outputs/works}
mkdir -p "$runs"
others="pop909=$POP909,scores=$SCORES"

measured() { # NAME COMMAND…: runs the command with the file of its rows as last argument, once
  if [ ! -e "$runs/$1.jsonl" ]; then
    rm -f "$runs/part.jsonl"
    python "${@:2}" "$runs/part.jsonl"
    mv "$runs/part.jsonl" "$runs/$1.jsonl"
  fi
}
measured works "$here/measure.py" "$ASAP" "$ACPAS" "$others"
measured windows "$here/windows.py" "$ASAP" "$ACPAS"
measured leaks "$here/leaks.py" "$ASAP" "$ACPAS" "$POP909" "$SCORES"
python "$here/report.py" "$runs" "$out"
