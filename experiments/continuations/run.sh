#!/usr/bin/env bash
# Trains a small model on POP909's songs 001-720 and continues the opening of every eighth validation song. POP909=PATH:
# the folder that holds POP909/. RUNS=DIR (default: outputs/continuations) keeps the runs, so that an interrupted one
# continues. Writes to OUT=PATH (default: this folder); compare.html, with the human continuations, goes to RUNS.
source "$(dirname "$0")/../setup.sh"
data=${POP909:?set POP909 to the folder that holds POP909/}
runs=${RUNS:-outputs/continuations}
settings=(data=pop909 data.root="$data" hardware=cpu hardware.precision=bf16-mixed compute.threads=1 model=tiny
  finetune.from_scratch=true loader.context=1024 trainer.max_steps=2000 trainer.val_check_interval=250 "${paths[@]}")

python -m pianolm.run stage=finetune "${settings[@]}" hydra.run.dir="$runs/train"
rm -rf "$runs/songs"
python "$here/songs.py" "$data" "$runs/songs"
generate() { # NAME key=value …
  python -m pianolm.run stage=generate "${settings[@]}" prompt="$runs/songs/*.mid" generate.prompt_beats=16 \
    generate.beats=32 generate.pieces=1 generate.soundfont=null seed=0 hydra.run.dir="$runs/$1" "${@:2}"
}
generate generate
generate cool generate.temperature=0.8 generate.audio=false generate.page=false
python "$here/report.py" "$data" "$runs" "$out"
