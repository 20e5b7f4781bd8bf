#!/usr/bin/env bash
# Trains the variants that are options of pianolm, one thread each: table and codebook embedding, plain and induction
# initialisation, two sizes of the body. ASAP=PATH: the folder with metadata.csv; RUNS=DIR (default:
# outputs/codebook-embedding) keeps the runs. Writes to OUT=PATH (default: this folder). Further arguments are overrides.
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/codebook-embedding}
settings=(stage=finetune data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" hardware=cpu
  compute.threads=1 loader.context=512 loader.val_tokens=65536 "${paths[@]}")
tiny=(model=tiny model.lr=2e-3 trainer.max_steps=150 trainer.val_check_interval=150 loader.batch_tokens=2048
  optimizer.warmup_steps=37)
wide=(model=tiny model.width=256 model.layers=4 model.heads=4 model.kv_heads=4 model.ffn=640 model.lr=1e-3
  trainer.max_steps=200 trainer.val_check_interval=200 loader.batch_tokens=1024 optimizer.warmup_steps=50)
overrides=("$@")

run() { # NAME key=value …
  python -m pianolm.run "${settings[@]}" "${@:2}" hydra.run.dir="'$runs/$1'" "${overrides[@]}"
}
scratch() { run "$@" finetune.from_scratch=true; }
for embedding in table codebook; do
  scratch "$embedding, scaled residual" "${tiny[@]}" model.embedding=$embedding model.init=plain
  scratch "$embedding, induction" "${tiny[@]}" model.embedding=$embedding model.init=induction
  scratch "$embedding, wide, scaled residual" "${wide[@]}" model.embedding=$embedding model.init=plain
  scratch "$embedding, wide, induction" "${wide[@]}" model.embedding=$embedding model.init=induction
done
scratch "codebook, scaled residual, seed 1" "${tiny[@]}" model.embedding=codebook model.init=plain seed=1
python "$here/report.py" "$runs" "$out"
