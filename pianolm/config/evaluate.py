"""Options of measuring, drawing and looking after artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from pianolm.config.option import option


@dataclass
class EvaluateConfig:
    """What every measure has."""

    name: str = option(MISSING, "Measure: roundtrip, lm, dynamics, samples, fill or beats.")
    split: str = option(
        "validation", "Split whose performances are measured.", choices=("train", "validation", "test", "all")
    )


@dataclass
class RoundtripConfig(EvaluateConfig):
    """What comes back from the tokens of performances."""


@dataclass
class BitsConfig(EvaluateConfig):
    """Bits per note of a language model."""


@dataclass
class DynamicsConfig(EvaluateConfig):
    """Velocities that a model gives to the notes of performances."""

    pieces: int | None = option(
        None, "Number of pieces, evenly spaced over the split; null: all.", at_least=1
    )
    beats: int | None = option(
        None, "Number of beats of each piece, from its first note; null: all.", at_least=1
    )
    temperature: float = option(
        1.0,
        "Sampling temperature; 0 takes the most likely velocity of each cell, or a dynamics model's expected one.",
        at_least=0,
    )
    top_p: float = option(
        1.0, "Smallest set of velocities with this probability; 1: off.", above=0, at_most=1
    )
    told_median: bool = option(
        False, "Tells a dynamics model the median velocity of each piece, as published comparisons do."
    )


@dataclass
class SamplesConfig(EvaluateConfig):
    """Continuations beside the human rest; `generate.*` says how they are sampled."""

    pieces: int | None = option(
        None, "Number of pieces, evenly spaced over the split; null: all.", at_least=1
    )
    prompt_beats: int = option(
        16, "Beats of each piece that the model continues, from its first bar on.", at_least=1
    )
    new_beats: int = option(32, "Beats that it plays, compared with the piece's own next ones.", at_least=1)


@dataclass
class FillMeasureConfig(EvaluateConfig):
    """Gaps that a model fills beside what stood there; `generate.*` says how they are sampled."""

    pieces: int | None = option(
        None, "Number of pieces, evenly spaced over the split; null: all.", at_least=1
    )
    gap_beats: int = option(8, "Beats of the gap, which is drawn by seed, from a bar line on.", at_least=1)


@dataclass
class BeatsMeasureConfig(EvaluateConfig):
    """Beats found from notes alone, by `data.tracker`, beside annotated ones."""

    pieces: int | None = option(
        None, "Number of performances, evenly spaced over the split; null: all.", at_least=1
    )


EVALUATE = {
    "roundtrip": RoundtripConfig,
    "lm": BitsConfig,
    "dynamics": DynamicsConfig,
    "samples": SamplesConfig,
    "fill": FillMeasureConfig,
    "beats": BeatsMeasureConfig,
}
"""Options of each measure, by its name."""


@dataclass
class PlotConfig:
    """What stage=plot draws."""

    what: str = option(
        "runs",
        "runs: curves of the training runs of plot.run; data: a page of the prepared data, to see and hear.",
        choices=("runs", "data"),
    )
    run: Any = option(
        None,
        "A run directory, that of a sweep or of several runs, a pattern ('outputs/base/*'), or a list of these.",
    )


@dataclass
class ArtifactsConfig:
    """What stage=artifacts does."""

    verify: bool = option(
        False, "Compares the contents of all files with their record, not only their sizes."
    )
    prune: bool = option(False, "Removes artifacts that no existing run uses; see them with plan=true first.")
