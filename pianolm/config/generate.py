"""Options of playing a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pianolm.config.option import expected, fields_of, fits, option

END_CHOICES = ("model", "never")

KINDS = ("tempo", "bar", "duration", "pitch", "pattern", "velocity")
"""Kinds of token that may have sampling options of their own."""

SAMPLING_DEFAULTS: dict[str, float] = {
    "temperature": 0.95,
    "top_p": 0.97,
    "top_k": 0,
    "min_p": 0.0,
    "repeat": 0.0,
}
"""Sampling where neither the user nor the model says anything."""
MODELS_OWN = "null: the model's own, else"
HIGHEST_TEMPERATURE = 100.0
STRONGEST_REPEAT = 100.0


@dataclass
class SamplingConfig:
    """Sampling options of one kind of token; null: as for all tokens."""

    temperature: float | None = option(
        None, "0 takes the most likely token.", at_least=0, at_most=HIGHEST_TEMPERATURE
    )
    top_p: float | None = option(None, "1: off.", above=0, at_most=1)
    top_k: int | None = option(None, "0: off.", at_least=0)
    min_p: float | None = option(None, "0: off.", at_least=0, at_most=1)


@dataclass
class GenerateConfig:
    """What is generated, and how it is sampled."""

    mode: str = option(
        "continue",
        "continue: continues the prompt, or begins anew without one; dynamics: new velocities for the prompt's notes, "
        "by the bundled dynamics model or the model given; "
        "fill: beats of the prompt (generate.fill or generate.fill_bars) written anew so that they fit both sides.",
        choices=("continue", "dynamics", "fill"),
    )
    prompt_grid: str = option(
        "auto",
        "Beats of the prompt: auto (beat file beside it, else beat track, else tempo map, else found from the notes "
        "where that map knows only a clock, as data.default_tempo says), file, tempo_map, track, estimate (always from "
        "the notes), or the path of a beat file.",
    )
    prompt_beats: int | None = option(
        None, "n: the first n beats of the prompt; -n: the last n; null: all of it."
    )
    fill: list[int] | None = option(
        None,
        "With mode=fill: first beat to write anew, counted from 0, and the beat after the last: generate.fill=[16,24].",
        at_least=0,
    )
    fill_bars: list[int] | None = option(
        None,
        "The same in bars, counted from 1, where the prompt has bars: generate.fill_bars=[5,7] is bars 5 and 6.",
        at_least=1,
    )
    fill_pitches: list[int] | None = option(
        None,
        "Lowest and highest MIDI pitch that is written anew: [60,127] leaves the left hand; null: all.",
        at_least=0,
        at_most=127,
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
    loudness: int | None = option(
        None,
        "How loud the new music is, from 1 (very soft) to 8 (very loud), also with mode=dynamics by a dynamics model; "
        "null: the model's own.",
        at_least=1,
        at_most=8,
    )
    density: int | None = option(
        None,
        "How many notes it has, from 1 (about one a beat) to 8 (nine and more); as generate.loudness.",
        at_least=1,
        at_most=8,
    )
    temperature: float | None = option(
        None,
        f"Sampling temperature; 0 takes the most likely token; {MODELS_OWN} {SAMPLING_DEFAULTS['temperature']}.",
        at_least=0,
        at_most=HIGHEST_TEMPERATURE,
    )
    top_p: float | None = option(
        None,
        "Samples from the smallest set of tokens with this probability; 1: off; "
        f"{MODELS_OWN} {SAMPLING_DEFAULTS['top_p']}.",
        above=0,
        at_most=1,
    )
    top_k: int | None = option(
        None, f"Samples from the k most likely tokens; 0: off; {MODELS_OWN} off.", at_least=0
    )
    min_p: float | None = option(
        None,
        f"Excludes tokens below this fraction of the highest probability; 0: off; {MODELS_OWN} off.",
        at_least=0,
        at_most=1,
    )
    repeat: float | None = option(
        None,
        "Preference for bars heard before: added to the logits of what followed at the same place of earlier bars, "
        f"before the temperature; 0: off, 2: mild; {MODELS_OWN} off.",
        at_least=0,
        at_most=STRONGEST_REPEAT,
    )
    by_kind: dict[str, Any] = option(
        {},
        "temperature, top_p, top_k and min_p of one kind of token (tempo, bar, duration, pitch, pattern, velocity), "
        "such as generate.by_kind.tempo.temperature=0.7; null: as for all tokens. What is not given is the model's "
        "own, unless a general option such as generate.temperature is given.",
    )
    audio: bool = option(True, "Writes a WAV file of each piece and a player on the page.")
    soundfont: str | None = option(
        "auto", "auto: FluidSynth with an installed soundfont; a path: that one; null: the built-in piano."
    )
    page: bool = option(True, "Writes index.html with all pieces.")


def kind_problems(prefix: str, by_kind: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each sampling option of a kind of token that is none; keys begin with `prefix`."""
    fields = fields_of(SamplingConfig)
    for kind, values in by_kind.items():
        key = f"{prefix}by_kind.{kind}"
        if kind not in KINDS:
            yield f"no option {key!r}: the kinds of token are {', '.join(KINDS)}"
        elif not isinstance(values, Mapping):
            yield f"{key}={values} found, expected options, such as {key}.temperature=0.8"
        else:
            for name, value in values.items():
                if name not in fields:
                    yield f"no option '{key}.{name}': {key} has {', '.join(fields)}"
                elif not fits(*fields[name], value):
                    yield f"{key}.{name}={value} found, expected {expected(*fields[name])}"
