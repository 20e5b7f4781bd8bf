#!/usr/bin/env bash
# Trains the bundled model, packs it, measures it and lets it play; five to six hours on one core.
# POP909=PATH and SCORES=PATH: the data sets. RUNS=DIR keeps the runs, so that an interrupted one continues. The packed
# model lies in RUNS/pop; copy it to pianolm/models/pop to let it come along. Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/box-model}
data=(data.parts.pop909="${POP909:?set POP909 to the data set}" data.parts.scores="${SCORES:?set SCORES to the data set}")
settings=(experiment=box "${data[@]}" "${paths[@]}" hardware=cpu hardware.precision=auto loader.val_tokens=32768)

train() { # RUN BASE [key=value …]: goes on from the weights of a run, at the full rate once more
  python -m pianolm.run stage=finetune "${settings[@]}" hydra.run.dir="$runs/$1" upstream.base="$(artifact_of "$runs/$2")" \
    "${@:3}"
}
some_scores="finetune.loader.source_weights.scores=0.05" # so that other styles are not forgotten

python -m pianolm.run stage=finetune "${settings[@]}" hydra.run.dir="$runs/first"
train second first
# the rate stays up, and comes down in the last runs, in which the context is twice as long
train third second "$some_scores" finetune.trainer.max_steps=1225 finetune.optimizer.schedule=wsd \
  finetune.optimizer.decay_fraction=0
decay=("$some_scores" finetune.optimizer.schedule=wsd finetune.optimizer.decay_fraction=0.7
  finetune.optimizer.min_lr_fraction=0 finetune.optimizer.warmup_steps=30 finetune.loader.context=2048)
train fourth third "${decay[@]}" finetune.trainer.max_steps="${LAST_STEPS:-1200}"
train fifth fourth "${decay[@]}" finetune.trainer.max_steps="${LAST_STEPS:-1200}" finetune.loader.fill_share=0.3 finetune.loader.control_share=0.3
# mostly gaps; no levels, which a model that is told them hardly obeys
train sixth fifth "${decay[@]}" finetune.trainer.max_steps="${LAST_STEPS:-1100}" finetune.loader.fill_share=0.6 finetune.loader.control_share=0

songs=(data=pop909 data.root="$POP909" "${paths[@]}" hardware=cpu)
samples() { # RUN MODEL [key=value …]: statistics
  python -m pianolm.run stage=evaluate evaluate=samples generate=songs "${songs[@]}" upstream.model="$2" \
    hydra.run.dir="$runs/$1" "${@:3}"
}
measure() { # NAME MODEL: bits a note and statistics
  python -m pianolm.run stage=evaluate evaluate=lm "${songs[@]}" upstream.model="$2" hydra.run.dir="$runs/$1-lm"
  samples "$1-samples" "$2"
}
python "$here/pack.py" "$(artifact_of "$runs/sixth")" "$(artifact_of "$runs/fifth")" "$artifacts" "$runs/pop"
for run in second fourth; do measure "$run" "$(artifact_of "$runs/$run")"; done
measure pop "$runs/pop"
for seed in {1..9}; do samples "pop-take-$seed" "$runs/pop" seed="$seed"; done
# other settings
for seed in {0..9}; do samples "pop-pitch-$seed" "$runs/pop" seed="$seed" generate.by_kind.pitch.temperature=0.75; done
for seed in {0..3}; do samples "pop-pattern-$seed" "$runs/pop" seed="$seed" generate.by_kind.pattern.top_p=0.98; done
python "$here/report.py" "$runs" "$out"

# what it plays, to hear and to see: docs/listen
play() { # RUN key=value …
  python -m pianolm.run stage=generate "${paths[@]}" upstream.model="$runs/pop" hardware=cpu hydra.run.dir="$runs/$1" "${@:2}"
}
play free generate.pieces=3 generate.beats=48
python "$here/prompts.py" "$runs/prompts"
play others prompt="$runs/prompts/*.mid" generate.pieces=1 generate.beats=32
python "$here/listen.py" "$runs" "${LISTEN:-$root/docs/listen}"
