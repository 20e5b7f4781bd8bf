#!/usr/bin/env bash
# Kills tiny training runs 20 times each and compares them with unbroken ones; writes results.json beside this file.
# What follows on the command line goes to tests/killing.py: --kills 3 --only "base, 1" for a quick look.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
python -m tests.killing --kills 20 --out "$here/results.json" "$@"
