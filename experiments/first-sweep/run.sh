#!/usr/bin/env bash
# Sweeps learning rate and width of a small language model on composed pieces, by joblib and by Ray, two jobs at once; a few
# minutes on two idle cores. RUNS=DIR keeps the runs; artifacts lie there too, so that each launcher builds all it needs.
# Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/first-sweep}
settings=(stage=base data.pieces=12 hardware=cpu hardware.precision=32-true logger=csv
  model.heads=2 model.kv_heads=2 model.layers=2 model.ffn=96 loader.context=128 loader.batch_tokens=1024
  loader.val_tokens=4096 trainer.max_steps=80 trainer.val_check_interval=20 optimizer.warmup_steps=10)

sweep() { # NAME key=value …: the sweep with a launcher
  python -m pianolm.run -m "${settings[@]}" optimizer.lr=1e-3,4e-3,1.6e-2 model.width=32,64 \
    paths.artifacts="$runs/$1/artifacts" hydra.sweep.dir="$runs/$1/sweep" "${@:2}"
}

sweep joblib hydra/launcher=joblib hydra.launcher.n_jobs=2
sweep ray hydra/launcher=ray
python -m pianolm.run stage=plot plot.run="$runs/joblib/sweep" hydra.run.dir="$runs/plot"
python "$here/report.py" "$runs" "$out"
