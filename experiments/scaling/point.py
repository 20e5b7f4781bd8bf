"""Trains one model size on one number of notes with one core, and scores it.

python point.py SIZE/NOTES --pop909 PATH --artifacts PATH --runs DIRECTORY

Writes DIRECTORY/SIZE/NOTES/row.json; a point that has one is not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.recipe.trial import (
    REFERENCE,
    TRIALS,
    children_seconds,
    kept,
    machine_and_paths,
    pianolm,
    read_row,
    scored,
    trained,
)
from experiments.results import METRICS, Row
from pianolm.data.token_store import TokenRow, TokenStore
from pianolm.training.hardware import resolve_hardware

SIZES = {
    "0.3M": ("model.width=48", "model.layers=3", "model.heads=3", "model.kv_heads=3", "model.ffn=128"),
    "1.1M": TRIALS["1.1M"],
    "3.1M": (),
    "6.0M": TRIALS["6M"],
}
"""What each size changes in the reference of experiments/recipe, whose own size is 3.1M."""
ALL = "all"
NOTES = ("100000", "350000", ALL)
"""Notes that are trained on; all: those of the training split."""
POINTS = tuple(f"{size}/{notes}" for notes in NOTES for size in SIZES)
"""All trainings, those of few notes and of small models first."""

BATCH_TOKENS, SEED = 4096, 0
PRECISION = "hardware.precision=auto"
"""bf16 where the processor has instructions for it, else fp32."""
RECIPE = (*REFERENCE, *TRIALS["adamw-4e-3"], f"loader.batch_tokens={BATCH_TOKENS}", f"seed={SEED}")
"""Settings of all trainings."""


class Music(NamedTuple):
    """What the training split holds.

    Attributes:
        notes: Struck notes.
        tokens: Their tokens, with those of beats, bars and tempo.
    """

    notes: int
    tokens: int

    def steps(self, notes: int, batch_tokens: int = BATCH_TOKENS) -> int:
        """Optimizer steps that see the tokens of as many notes, at most one pass; at least one step."""
        return max(notes * self.tokens // (self.notes * batch_tokens), 1)

    def asked_for(self, notes: str) -> int:
        """The number of notes of an entry of `NOTES`.

        Raises:
            ValueError: There are fewer notes than that.
        """
        wanted = self.notes if notes == ALL else int(notes)
        if wanted > self.notes:
            raise ValueError(f"{wanted} notes asked for, but the training split has {self.notes}")
        return wanted


def music_of(pieces: Iterable[TokenRow]) -> Music:
    """Notes and tokens of the pieces for training."""
    training = [piece for piece in pieces if piece.split == "train"]
    return Music(sum(piece.notes for piece in training), sum(piece.stop - piece.start for piece in training))


def precision() -> str:
    """The precision that `PRECISION` chooses on this machine."""
    wanted = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "auto"}
    return resolve_hardware(wanted).precision


def train(settings: tuple[str, ...], steps: int, run: Path) -> Row:
    """Trains; CPU seconds of the whole program, its largest memory, and what it says of itself."""
    before = children_seconds()
    # of an artifact that is there already no time would be known
    memory = trained((*settings, "force=true"), steps, run)
    seconds = children_seconds() - before
    said = read_row(run / "train" / METRICS)
    result = {key: said[key] for key in ("artifact", "parameters", "tokens_seen", "resumed_from_step")}
    return memory | {"program_seconds": seconds} | result


def time_of_training(training: Row, start: float, steps: int) -> Row:
    """CPU seconds of all steps, and tokens a second, without the start of the program.

    Args:
        training: What `train` returned. Of a training that went on after a break, its seconds are those since then.
        start: CPU seconds of a training of one step.
        steps: Steps of the training.

    Raises:
        ValueError: No step but one was timed.
    """
    timed = steps - training["resumed_from_step"] - 1
    if timed < 1:
        raise ValueError(
            f"{timed + 1} of {steps} steps timed, expected two at least; remove train.json to train again"
        )
    seconds = (training["program_seconds"] - start) / timed * steps
    return {"train_seconds": seconds, "tokens_per_second": training["tokens_seen"] / seconds}


def measure(size: str, notes: str, pop909: Path, artifacts: Path, runs: Path) -> Row:
    """The row of a point: its training, what that took, and bits a note after it."""
    run = runs / size / notes
    settings = (*RECIPE, *SIZES[size], *machine_and_paths(artifacts), PRECISION, f"data.root={pop909}")
    pianolm("stage=tokenize", *settings, f"hydra.run.dir={run}/tokenize")
    store = TokenStore.open(read_row(run / "tokenize" / METRICS)["artifact"])
    music = music_of(store.pieces)
    steps = music.steps(music.asked_for(notes))
    fresh = (*settings, "resume=never")
    start = kept(runs / size / "start.json", lambda: train(fresh, 1, runs / size / "start"))
    training = kept(run / "train.json", lambda: train(settings, steps, run))
    return {
        "point": f"{size}/{notes}",
        "size": size,
        "changed": list(SIZES[size]),
        "parameters": training["parameters"],
        "train_notes": music.asked_for(notes),
        "tokens_seen": training["tokens_seen"],
        "steps": steps,
        **time_of_training(training, start["program_seconds"], steps),
        "peak_rss_mb": training["peak_rss_mb"],
        "precision": precision(),
        "seed": SEED,
        "music_notes": music.notes,
        "music_tokens": music.tokens,
        **scored(training["artifact"], pop909, artifacts, runs, run),
    }


def main(point: str, pop909: Path, artifacts: Path, runs: Path) -> None:
    size, notes = point.split("/")
    (runs / size / notes).mkdir(parents=True, exist_ok=True)
    kept(runs / size / notes / "row.json", lambda: measure(size, notes, pop909, artifacts, runs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("point", choices=POINTS, metavar="SIZE/NOTES", help=", ".join(POINTS))
    for option in ("pop909", "artifacts", "runs"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    main(**vars(parser.parse_args()))
