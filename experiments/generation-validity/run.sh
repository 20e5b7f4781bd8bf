#!/usr/bin/env bash
# Checks 1,000 pieces of an untrained model, with and without velocities. MODEL=DIR: pieces of that model, too. Writes
# results.jsonl, metrics.json and README.md to OUT=PATH (default: this folder). Further arguments go to check.py, such as
# --pieces 50 for a quick look.
source "$(dirname "$0")/../setup.sh"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
for mode in velocity base; do
  python -m pianolm.run stage=tokenize tokenizer=$mode data=demo velvq.max_steps=100 velvq.val_every=100 \
    compute.threads=1 "${paths[@]}" hydra.run.dir="$runs/$mode"
  python "$here/check.py" --name "untrained, $mode" --tokenizer "$(artifact_of "$runs/$mode")" --out "$out" "$@"
done
if [ -n "${MODEL:-}" ]; then
  python "$here/check.py" --name "trained (make demo)" --model "$MODEL" --temperature 0.95 --top-p 0.97 --out "$out" "$@"
fi
