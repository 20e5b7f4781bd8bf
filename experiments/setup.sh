# Sourced by every run.sh: `source "$(dirname "$0")/../setup.sh"`. Sets $here, the folder of the experiment, and
# $artifacts, where artifacts are kept and looked for (ARTIFACTS=PATH, default: artifacts).
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" # so that scripts find experiments.results
artifacts=${ARTIFACTS:-artifacts}
paths=(paths.artifacts="$artifacts" paths.work="$artifacts/.work" logger=csv)

artifact_of() { # DIRECTORY: the artifact that the run in this directory published
  python -c 'import json, sys; print(json.load(open(sys.argv[1] + "/metrics.json"))["artifact"])' "$1"
}

out=${OUT:-$here}
if [ "$out" != "$here" ]; then # the tables are written into a copy of the README
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  cp "$here/README.md" "$out/README.md"
fi
