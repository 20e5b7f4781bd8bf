#!/usr/bin/env bash
# 1,000 pieces of an untrained model, with and without velocities; writes results.json and the table of README.md.
# MODEL=DIR: pieces of that model, too. ARTIFACTS=PATH (default: artifacts): where artifacts are kept and looked for.
# What follows on the command line goes to check.py: --pieces 50 for a quick look.
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")" && pwd)
artifacts=${ARTIFACTS:-artifacts}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -f "$here/results.json"
for mode in velocity base; do
  python -m pianolm.run stage=tokenize tokenizer=$mode data=demo velvq.max_steps=100 velvq.val_every=100 \
    compute.threads=1 logger=csv paths.artifacts="$artifacts" paths.work="$artifacts/.work" \
    hydra.run.dir="$scratch/$mode"
  tokenizer=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["artifact"])' "$scratch/$mode/metrics.json")
  python "$here/check.py" --name "untrained, $mode" --tokenizer "$tokenizer" --into "$here" "$@"
done
if [ -n "${MODEL:-}" ]; then
  python "$here/check.py" --name trained --model "$MODEL" --temperature 0.95 --top-p 0.97 --into "$here" "$@"
fi
