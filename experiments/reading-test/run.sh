#!/usr/bin/env bash
# Builds the site, prints the questions for a reader who has nothing else, and writes the table of the rows that are there.
# Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
[ "$out" = "$here" ] || cp "$here/results.jsonl" "$out/"
(cd "$root" && make docs)
python -c 'import json, sys; print(*(json.loads(line)["question"] for line in open(sys.argv[1])), sep="\n")' "$here/results.jsonl"
python "$here/report.py" "$out"
