"""Options of playing a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pianolm.config.option import option

END_CHOICES = ("model", "never")

KINDS = ("tempo", "bar", "duration", "pitch", "pattern", "velocity")
"""Kinds of token that may have sampling options of their own."""


@dataclass
class SamplingConfig:
    """Sampling options of one kind of token; null: as for all tokens."""

    temperature: float | None = option(None, "0 takes the most likely token.", at_least=0)
    top_p: float | None = option(None, "1: off.", above=0, at_most=1)
    top_k: int | None = option(None, "0: off.", at_least=0)
    min_p: float | None = option(None, "0: off.", at_least=0, at_most=1)


@dataclass
class GenerateConfig:
    """What is generated, and how it is sampled."""

    mode: str = option(
        "continue",
        "continue: continues the prompt, or begins anew without one; dynamics: new velocities for the prompt's notes.",
        choices=("continue", "dynamics"),
    )
    prompt_grid: str = option(
        "auto",
        "Beats of the prompt: auto (beat file beside it, else beat track, else tempo map), file, tempo_map, track, "
        "or the path of a beat file.",
    )
    prompt_beats: int | None = option(
        None, "n: the first n beats of the prompt; -n: the last n; null: all of it."
    )
    with_prompt: bool = option(True, "Output files begin with the prompt.")
    pieces: int = option(4, "Number of pieces to generate from each prompt.", at_least=1)
    beats: int = option(64, "New beats of a piece; fewer where the model ends it.", at_least=1)
    end: str = option(
        "model",
        "model: a piece ends where the model ends it; never: not before generate.beats or generate.seconds.",
        choices=END_CHOICES,
    )
    seconds: float | None = option(None, "New seconds of a piece; replaces generate.beats.", above=0)
    tempo_bpm: float | None = option(None, "Tempo of all new beats; null: the model's own.", above=0)
    temperature: float = option(0.95, "Sampling temperature; 0 takes the most likely token.", at_least=0)
    top_p: float = option(
        0.97, "Samples from the smallest set of tokens with this probability; 1: off.", above=0, at_most=1
    )
    top_k: int = option(0, "Samples from the k most likely tokens; 0: off.", at_least=0)
    min_p: float = option(
        0.0, "Excludes tokens below this fraction of the highest probability; 0: off.", at_least=0, at_most=1
    )
    repeat: float = option(
        0.0,
        "Preference for bars heard before: added to the logits of what followed at the same place of earlier bars, "
        "before the temperature; 0: off, 2: mild.",
        at_least=0,
    )
    by_kind: dict[str, Any] = option(
        {},
        "Sampling options of one kind of token (tempo, bar, duration, pitch, pattern, velocity): "
        "generate.by_kind.tempo.temperature=0.7.",
    )
    audio: bool = option(True, "Writes a WAV file of each piece and a player on the page.")
    soundfont: str | None = option(
        "auto", "auto: FluidSynth with an installed soundfont; a path: that one; null: the built-in piano."
    )
    page: bool = option(True, "Writes index.html with all pieces.")
