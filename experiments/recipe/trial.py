"""Trains one variation of the recipe for a fixed time of one core, and scores it.

python trial.py NAME --minutes 15 --pop909 PATH --artifacts PATH --runs DIRECTORY

Writes DIRECTORY/NAME/row.json; a trial that has one is not repeated. The trial "reference" comes first.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.results import METRICS, Row, read_metrics

TOKENIZER = Path(__file__).resolve().parents[2] / "pianolm" / "models" / "pop" / "tokenizer"
"""Codebook and velocity codec of all trials: those of the model in the box."""

MACHINE = ("hardware=cpu", "compute.threads=1", "logger=csv")
REFERENCE = (
    *("experiment=ties", "optimizer=muon"),
    *(
        "model=tiny",
        "model.width=192",
        "model.layers=5",
        "model.heads=6",
        "model.kv_heads=6",
        "model.ffn=512",
    ),
    *("loader.context=1024", "loader.transpose=5", "loader.val_tokens=4096", "finetune.from_scratch=true"),
    *(f"upstream.codebook={TOKENIZER}/codebook.npz", f"upstream.velvq={TOKENIZER}/velocity"),
)
"""The recipe of the model in the box, on POP909 alone, with velocities from the start."""

TRIALS = {
    "reference": (),
    "adamw-2e-3": ("optimizer=adamw", "optimizer.lr=2e-3"),
    "adamw-4e-3": ("optimizer=adamw", "optimizer.lr=4e-3"),
    "adamw-8e-3": ("optimizer=adamw", "optimizer.lr=8e-3"),
    "muon-embeddings-4e-3": ("optimizer.adamw_lr=4e-3",),
    "batch-2048": ("loader.batch_tokens=2048",),
    "context-2048": ("loader.context=2048",),
    "context-512": ("loader.context=512",),
    "1.1M": ("model.width=128", "model.layers=3", "model.heads=4", "model.kv_heads=4", "model.ffn=256"),
    "6M": ("model.width=256", "model.layers=6", "model.heads=8", "model.kv_heads=8", "model.ffn=704"),
    "ties-repeat": ("tokenizer.ties=repeat",),
    "no-transposition": ("loader.transpose=0",),
    "wsd": ("optimizer.schedule=wsd", "optimizer.decay_fraction=0.4", "optimizer.min_lr_fraction=0"),
    "plain-init": ("model.init=plain",),
    "no-bars": ("tokenizer.bars=false",),
    "plain-tempo": ("tokenizer.tempo=log50",),
    "dropout": ("model.dropout=0.1",),
}
"""What each trial changes."""

RESIZED = ("loader.context", "loader.batch_tokens", "model.width", "model.dropout")
"""Options that change what a step computes. The steps of all other trials are as many as those of the reference."""
SHORT, LONG = 3, 15
"""Steps of the two runs whose difference gives the time of a step, without the start of the program."""
SPEED = "speed.json"
SCORED_SONGS = range(721, 801, 4)
"""Validation songs that are scored."""


def pianolm(*overrides: str) -> None:
    """Runs one stage in a process of its own."""
    subprocess.run([sys.executable, "-m", "pianolm.run", *overrides], check=True)


def children_seconds() -> float:
    """CPU seconds, user and system, of all processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_per_step(settings: tuple[str, ...], run: Path) -> float:
    """CPU seconds of an optimizer step."""
    spent = []
    for steps in (SHORT, LONG):
        before = children_seconds()
        lengths = (
            f"trainer.max_steps={steps}",
            f"trainer.val_check_interval={steps}",
            "force=true",
            "resume=never",
        )
        pianolm("stage=finetune", *settings, *lengths, f"hydra.run.dir={run}/speed-{steps}")
        spent.append(children_seconds() - before)
    return (spent[1] - spent[0]) / (LONG - SHORT)


def measured_speed(name: str, common: tuple[str, ...], runs: Path) -> Row:
    """CPU seconds per step, those of a trial of another size by its ratio to the reference, measured side by side."""
    reference = runs / "reference"
    if name == "reference":
        return {"seconds_per_step": seconds_per_step((*REFERENCE, *common), reference)}
    seconds = read_row(reference / SPEED)["seconds_per_step"]
    if any(change.startswith(RESIZED) for change in TRIALS[name]):
        own = seconds_per_step((*REFERENCE, *TRIALS[name], *common), runs / name)
        seconds *= own / seconds_per_step((*REFERENCE, *common), runs / name / "reference")
    return {"seconds_per_step": seconds}


def scored_songs(pop909: Path, root: Path) -> Path:
    """A folder in POP909's layout with links to the songs that are scored."""
    for song in SCORED_SONGS:
        link = root / "POP909" / str(song)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(pop909.resolve() / "POP909" / str(song))
    return root


def kept(path: Path, measure: Callable[[], Row]) -> Row:
    """What a file says, after it was measured and written where there is none."""
    if not path.is_file():
        path.write_text(json.dumps(measure()) + "\n", "utf-8")
    return read_row(path)


def read_row(path: Path) -> Row:
    """The object in a JSON file."""
    return dict(json.loads(path.read_text("utf-8")))


def trained(settings: tuple[str, ...], steps: int, run: Path) -> Row:
    """Largest memory of a training."""
    lengths = (f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}")
    pianolm("stage=finetune", *settings, *lengths, f"hydra.run.dir={run}/train")
    return {"peak_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}


def machine_and_paths(artifacts: Path) -> tuple[str, ...]:
    """Settings of all stages: the machine, where artifacts are kept, and the data set without its folder."""
    return (*MACHINE, f"paths.artifacts={artifacts}", f"paths.work={artifacts}/.work", "data=pop909")


def scored(model: str, pop909: Path, artifacts: Path, runs: Path, run: Path) -> Row:
    """Bits a note of a model, the artifact of a training, on the songs that are scored."""
    songs = (f"data.root={scored_songs(pop909, runs / 'songs')}", f"upstream.model={model}")
    settings = (*machine_and_paths(artifacts), *songs)
    pianolm("stage=evaluate", "evaluate=lm", *settings, f"hydra.run.dir={run}/lm")
    return read_metrics(run / "lm")


def measure(name: str, minutes: float, pop909: Path, artifacts: Path, runs: Path) -> Row:
    """The row of a trial: its speed, the steps that fit into the time, and bits a note after them."""
    common = (*machine_and_paths(artifacts), f"data.root={pop909}")
    settings = (*REFERENCE, *TRIALS[name], *common)
    run = runs / name
    pianolm("stage=tokenize", *settings, f"hydra.run.dir={run}/tokenize")
    speed = kept(run / SPEED, lambda: measured_speed(name, common, runs))
    steps = round(minutes * 60 / speed["seconds_per_step"])
    training = kept(run / "train.json", lambda: trained(settings, steps, run))
    result = read_row(run / "train" / METRICS)
    described = {"trial": name, "changed": list(TRIALS[name]), "minutes": minutes, "steps": steps}
    seen = {key: result[key] for key in ("tokens_seen", "parameters")}
    return described | speed | training | seen | scored(result["artifact"], pop909, artifacts, runs, run)


def main(name: str, minutes: float, pop909: Path, artifacts: Path, runs: Path) -> None:
    kept(runs / name / "row.json", lambda: measure(name, minutes, pop909, artifacts, runs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=TRIALS)
    parser.add_argument("--minutes", type=float, required=True)
    for option in ("pop909", "artifacts", "runs"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    main(**vars(parser.parse_args()))
