#!/usr/bin/env bash
# Hostile input: mutated files, damaged artifacts, kills, full disks, the cases of a folder, written pieces, mistakes.
# DATA=PATH: the folder of pop909/ and asap/; CASES=PATH: a folder of small files with a README.md; both may be left out.
# Writes to OUT=PATH (default: this folder). Further arguments go to hostile.py: --mutants 100 --kills 1 for a quick look,
# --parts mutants,damage,kills,disks,cases,writing,mistakes for some of it. Full disks are small tmpfs mounts for root,
# else a limit on the size of files.
source "$(dirname "$0")/../setup.sh"
export OMP_NUM_THREADS=1
python "$here/hostile.py" ${DATA:+--data "$DATA"} ${CASES:+--cases "$CASES"} --out "$out" "$@"
