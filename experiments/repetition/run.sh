#!/usr/bin/env bash
# Continues the openings of POP909's validation songs with different settings of sampling. MODEL=DIR: the model (default:
# pop, the bundled one). POP909=PATH: the folder that holds POP909/. SONGS=N: only so many, evenly spaced (default:
# all). RUNS=DIR (default: outputs/repetition) keeps the runs, so that an interrupted script continues; use another one
# for another model. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
model=${MODEL:-pop}
runs=${RUNS:-outputs/repetition}
settings=(generate=plain data=pop909 data.root="${POP909:?set POP909 to the folder that holds POP909/}" "${paths[@]}" hardware=cpu
  compute.threads=1 upstream.model="$model" seed=0 evaluate.pieces="${SONGS:-null}" generate.page=false
  generate.audio=false)

try() { # NAME [key=value …]: options of generate, without that word
  [ -f "$runs/$1/metrics.json" ] && return
  local overrides=("${@:2}")
  python -m pianolm.run stage=evaluate evaluate=samples "${settings[@]}" hydra.run.dir="$runs/$1" \
    "${overrides[@]/#/generate.}"
}
pitch=by_kind.pitch pattern=by_kind.pattern
# the kind of the next token is sampled as the model has it; only the token of that kind is chosen more carefully
kinds=(temperature=1 top_p=1 by_kind.velocity.temperature=0.95 by_kind.velocity.top_p=0.97
  by_kind.tempo.temperature=0.5)

try plain repeat=0
try repeat-2 repeat=2
try kinds-2 repeat=2 "${kinds[@]}" $pattern.top_p=0.98 $pitch.temperature=0.8 $pitch.top_p=0.95
try kinds-2.5 repeat=2.5 "${kinds[@]}" $pattern.top_p=0.975 $pitch.temperature=0.8 $pitch.top_p=0.95
try kinds-3 repeat=3 "${kinds[@]}" $pattern.top_p=0.97 $pitch.temperature=0.8 $pitch.top_p=0.95
# and the likeliest place in the bar: tried with pop and all songs
try bar-2 repeat=2 "${kinds[@]}" $pattern.top_p=0.98 $pitch.temperature=0.8 $pitch.top_p=0.95 by_kind.bar.temperature=0
try bar-2.5 repeat=2.5 "${kinds[@]}" $pattern.top_p=0.98 $pitch.temperature=0.8 $pitch.top_p=0.95 \
  by_kind.bar.temperature=0
[ -f "$runs/speed.json" ] || python "$here/speed.py" "$model" "$runs/speed.json"
python "$here/report.py" "$runs" "$out"
