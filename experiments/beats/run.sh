#!/usr/bin/env bash
# Trains the bundled beat tracker, packs it, compares settings of its decoder, measures it, and trains a small language
# model on ASAP three times: with the annotated beats, with estimated ones, and with a clock of 120 BPM. POP909=PATH and
# SCORES=PATH: what the tracker learns from; ASAP=PATH and again POP909: what it is measured on. RUNS=DIR keeps the runs, so
# that an interrupted one continues; STEPS, LM_STEPS and THREADS change the trainings. The packed tracker lies in RUNS/beats;
# copy it to pianolm/models/beats to let it come along. Librosa's rows need the extra evaluate (pip install
# '.[evaluate]' in the checkout). Writes to OUT=PATH (default: this folder).
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-outputs/beats}
pop909=${POP909:?set POP909 to the data set} scores=${SCORES:?set SCORES to the data set}
asap=${ASAP:?set ASAP to the folder with metadata.csv}
settings=("${paths[@]}" hardware=cpu compute.threads="${THREADS:-1}")

# experiment=box says which works are left out and which licences are allowed; none of its pieces needs a tracker
python -m pianolm.run stage=beats experiment=box data.parts.pop909="$pop909" data.parts.scores="$scores" \
  data.default_tempo=use beats.max_steps="${STEPS:-9000}" trainer.val_check_interval=500 "${settings[@]}" \
  hardware.precision=auto hydra.run.dir="$runs/train"
tracker=$(artifact_of "$runs/train")
[ -d "$runs/beats" ] || python "$here/pack.py" "$tracker" "$artifacts" "$runs/beats"
[ -f "$runs/decoder.jsonl" ] || python "$here/tune.py" "$runs/beats" "$artifacts" "$runs/decoder.jsonl"

for set in asap pop909; do
  python -m pianolm.run stage=evaluate evaluate=beats data="$set" data.root="${!set}" data.tracker="$runs/beats" \
    "${settings[@]}" hydra.run.dir="$runs/$set"
done
[ -f "$runs/annotations.jsonl" ] || python "$here/annotations.py" "$runs/beats" "$pop909" "$runs/annotations.jsonl"

train_on() { # NAME [key=value …]: bits a note and round trip of a small model on ASAP's pieces with other beats
  local data=(data=asap data.root="$asap" data.limit=300 "${@:2}") run="$runs/lm-$1"
  local tokenizer=upstream.tokenizer="$root/pianolm/models/pop"
  python -m pianolm.run stage=finetune finetune.from_scratch=true model=tiny optimizer=muon loss=constrained "$tokenizer" \
    trainer.max_steps="${LM_STEPS:-300}" trainer.val_check_interval=100 "${data[@]}" "${settings[@]}" hydra.run.dir="$run/train"
  python -m pianolm.run stage=evaluate evaluate=lm upstream.model="$(artifact_of "$run/train")" "${data[@]}" \
    "${settings[@]}" hydra.run.dir="$run/lm"
  python -m pianolm.run stage=evaluate evaluate=roundtrip "$tokenizer" "${data[@]}" "${settings[@]}" \
    hydra.run.dir="$run/roundtrip"
}
train_on annotated
train_on estimated data.beats=estimate data.tracker="$runs/beats"
train_on clock data.beats=tempo_map data.default_tempo=use
python "$here/report.py" "$runs" "$out"
