#!/usr/bin/env bash
# The chain on ASAP with a tiny model; ASAP=PATH says where the data set lies. Writes results.json beside this file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
settings=(data=asap data.root="${ASAP:?set ASAP to the folder with metadata.csv}" model=tiny trainer.max_steps=300
  trainer.batch_tokens=4096 velvq.max_steps=600 velvq.val_every=300 compute.threads=1)
for stage in velvq base finetune generate; do
  python -m pianolm.run stage="$stage" "${settings[@]}" hydra.run.dir="outputs/first-chain/$stage"
done
python - "$here/results.json" <<'PY'
import json, sys
from pathlib import Path
stages = ("velvq", "base", "finetune", "generate")
found = {s: json.loads(Path(f"outputs/first-chain/{s}/metrics.json").read_text()) for s in stages}
kept = {s: {k: v for k, v in m.items() if k not in ("artifact", "stage")} for s, m in found.items()}
Path(sys.argv[1]).write_text(json.dumps(kept, indent=2) + "\n")
PY
