#!/usr/bin/env bash
# Trains a small model on POP909's songs 001-720, lets it go on from the opening of every eighth validation song, and
# writes results.json, the table of README.md, rolls.png, midi/ and index.html; compare.html, with the human rest beside
# each continuation, goes to OUT. POP909=PATH says where the data set lies; OUT=DIR (default: outputs/continuations) keeps
# the runs, ARTIFACTS=PATH (default: artifacts) what is trained, so that a broken run goes on.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
root=${POP909:?set POP909 to the folder that holds POP909/}
out=${OUT:-outputs/continuations}
artifacts=${ARTIFACTS:-artifacts}
settings=(data=pop909 data.root="$root" hardware=cpu hardware.precision=bf16-mixed compute.threads=1 logger=csv
  model=tiny finetune.from_scratch=true trainer.context=1024 trainer.max_steps=2000 trainer.val_every=250
  paths.artifacts="$artifacts" paths.work="$artifacts/.work")

python -m pianolm.run stage=finetune "${settings[@]}" hydra.run.dir="$out/train"
rm -rf "$out/songs"
python "$here/songs.py" "$root" "$out/songs"
generate() { # NAME, then overrides
  python -m pianolm.run stage=generate "${settings[@]}" prompt="$out/songs/*.mid" generate.prompt_beats=16 \
    generate.beats=32 generate.pieces=1 generate.soundfont=null seed=0 hydra.run.dir="$out/$1" "${@:2}"
}
generate generate
generate cool generate.temperature=0.8 generate.audio=false generate.page=false
python "$here/report.py" "$root" "$out" "$here"
