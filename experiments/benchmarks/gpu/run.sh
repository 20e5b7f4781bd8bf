#!/usr/bin/env bash
# Tokens per second of model=medium in bf16 on one GPU, compiled and not; under ten minutes. PEAK=TFLOP/S of the GPU in bf16
# (default: 790, what an H200 sustains). DRY=1 tries the script on the CPU with model=tiny and few steps. Writes to OUT=PATH
# (default: this folder).
source "$(dirname "$0")/../../setup.sh"
if [ -n "${DRY:-}" ]; then
  settings=(model=tiny hardware=cpu hardware.precision=bf16-mixed loader.batch_tokens=2048 loader.context=512 data.pieces=8)
  steps=4
else
  settings=(model=medium hardware=gpu loader.batch_tokens=131072 loader.micro_batch_tokens=65536 loader.context=2048)
  steps=${STEPS:-60}
fi
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
settings+=(data=demo tokenizer=base loader.val_tokens=4096 trainer.val_check_interval=100000 optimizer.warmup_steps=2
  trainer.max_steps="$steps" callbacks.progress.every_n_steps=1 paths.artifacts="$runs/artifacts" logger=csv)
for compile in false true; do
  python -m pianolm.run stage=base "${settings[@]}" model.compile=$compile hydra.run.dir="$runs/$compile" &&
    python "$here/bench.py" --run "$runs/$compile" --peak "${PEAK:-790}" ${DRY:+--dry} --out "$out"
done
