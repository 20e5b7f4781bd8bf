"""Settings of generation: how each token is sampled, and when a piece ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from pianolm.config.generate import (
    END_CHOICES,
    HIGHEST_TEMPERATURE,
    SAMPLING_DEFAULTS,
    STRONGEST_REPEAT,
    GenerateConfig,
)
from pianolm.errors import UserError
from pianolm.lm.sampling_file import FILE, read_sampling
from pianolm.tokenizer.controls import CONTROL_NAMES, checked_levels
from pianolm.tokenizer.tempo import LOWEST_BPM, RANGE_BPM
from pianolm.tokenizer.vocabulary import KIND_GROUPS, Kind

SAMPLED_KINDS = {
    name: tuple(kind for kind in kinds if kind is not Kind.EOS) for name, kinds in KIND_GROUPS.items()
}
"""Kinds of token that may have sampling settings of their own. Whether a piece ends is no choice among tempi."""

DEFAULTS = GenerateConfig()
"""The options of the command line, whose defaults hold here, too."""

HIGHEST_BPM = LOWEST_BPM * RANGE_BPM


@dataclass(frozen=True)
class SamplingRule:
    """Temperature and truncation of a distribution over tokens.

    Tokens with equal probability at a truncation threshold are all kept.

    Attributes:
        temperature: Divides the logits; 0 takes the most likely token.
        top_k: Keeps the k most likely tokens; 0 keeps all.
        top_p: Keeps the smallest set of most likely tokens whose probability is at least p; 1 keeps all.
        min_p: Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.

    Raises:
        UserError: A value is out of range.
    """

    temperature: float = SAMPLING_DEFAULTS["temperature"]
    top_k: int = int(SAMPLING_DEFAULTS["top_k"])
    top_p: float = SAMPLING_DEFAULTS["top_p"]
    min_p: float = SAMPLING_DEFAULTS["min_p"]

    def __post_init__(self) -> None:
        checks = {
            "temperature": (
                lambda value: 0 <= value <= HIGHEST_TEMPERATURE,
                f"0 (most likely token) to {HIGHEST_TEMPERATURE:g}",
            ),
            "top_k": (lambda value: value >= 0 and value == int(value), "0 (off) or a larger whole number"),
            "top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
            "min_p": (lambda value: 0 <= value <= 1, "0 (off) to 1"),
        }
        for name, (is_valid, expected) in checks.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not is_valid(value):
                raise UserError(f"{name}={value!r} found, expected {expected}")


_RULE = tuple(one.name for one in fields(SamplingRule))


@dataclass(frozen=True)
class StoppingCriteria:
    """A piece ends at the first beat line after this much new music, unless the model ends it earlier.

    Attributes:
        beats: New beats; ignored where `seconds` is given.
        seconds: Seconds of new music as the tempo tokens count them, or None.

    Raises:
        UserError: A value is out of range.
    """

    beats: int = DEFAULTS.beats
    seconds: float | None = DEFAULTS.seconds

    def __post_init__(self) -> None:
        if self.seconds is None and self.beats < 1:
            raise UserError(f"beats={self.beats} found, expected at least 1")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UserError(f"seconds={self.seconds} found, expected more than 0")

    def is_met(self, beats: int, seconds: float) -> bool:
        """Whether a piece with this many new beats, which last this many seconds, is long enough."""
        return beats >= self.beats if self.seconds is None else seconds >= self.seconds


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are sampled, where something is said about it; None leaves it to the model, or to the defaults.

    The kind of the next token (another note, the next beat, the end) is always sampled with the general settings; the
    token among those of that kind, with the settings of the kind.

    Attributes:
        temperature: See `SamplingRule`, as for the next three.
        top_p: See `SamplingRule`.
        top_k: See `SamplingRule`.
        min_p: See `SamplingRule`.
        repeat: Added to the logit of a pitch that followed at the same place of all earlier bars; see
            `pianolm.generation.repetition`. 0 is off.
        by_kind: Settings of single kinds of token that differ from the general ones, such as
            `{"tempo": {"temperature": 0.7}}`; None in place of a number: as the general one. The kinds are those of
            `SAMPLED_KINDS`.

    Raises:
        UserError: A value is out of range, or a kind or its setting is unknown.
    """

    temperature: float | None = DEFAULTS.temperature
    top_p: float | None = DEFAULTS.top_p
    top_k: int | None = DEFAULTS.top_k
    min_p: float | None = DEFAULTS.min_p
    repeat: float | None = DEFAULTS.repeat
    by_kind: Mapping[str, Mapping[str, float | None]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        repeat = self.repeat
        if repeat is not None and not 0 <= repeat <= STRONGEST_REPEAT:
            raise UserError(f"repeat={repeat} found, expected 0 (off) to {STRONGEST_REPEAT:g}")
        _ = self.rule
        for kind, settings in self.by_kind.items():
            _check_kind(kind, settings)
            self.rule_of(kind)

    @property
    def rule(self) -> SamplingRule:
        """The general rule, with the defaults for what is None."""
        return replace(SamplingRule(), **_given(self.sampling, _RULE))

    def rule_of(self, kind: str) -> SamplingRule:
        """The rule of one kind of token."""
        try:
            return replace(self.rule, **_given(self.by_kind.get(kind, {}), _RULE))
        except UserError as error:
            raise UserError(f"by_kind.{kind}.{error}") from error

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings alone, by the names of the options `generate.*`."""
        return {one.name: getattr(self, one.name) for one in fields(SamplingSettings)}

    def left_of(self, model: SamplingSettings) -> SamplingSettings:
        """What holds of a model's settings: what no setting here replaces, be it a general one or one of the kind.

        With `temperature=0.8` here, no temperature of the model is left.
        """
        own = _given(self.sampling, SAMPLING_DEFAULTS)
        general = {
            name: v for name, v in _given(model.sampling, SAMPLING_DEFAULTS).items() if name not in own
        }
        by_kind = {}
        for kind, brought in model.by_kind.items():
            replaced = {*own, *self.by_kind.get(kind, {})}
            if left := {name: v for name, v in brought.items() if v is not None and name not in replaced}:
                by_kind[kind] = left
        return SamplingSettings(**general, by_kind=by_kind)

    def over(self, model: SamplingSettings) -> Self:
        """These settings, in place of None those that are left of a model's, else the defaults."""
        left = self.left_of(model)
        general = {**SAMPLING_DEFAULTS, **_given(left.sampling, SAMPLING_DEFAULTS)}
        by_kind = {
            kind: rule
            for kind in dict.fromkeys([*left.by_kind, *self.by_kind])
            if (rule := {**left.by_kind.get(kind, {}), **_given(self.by_kind.get(kind, {}), _RULE)})
        }
        return replace(self, **{**general, **_given(self.sampling, SAMPLING_DEFAULTS)}, by_kind=by_kind)

    def words(self) -> str:
        """What differs from the defaults, as typed on the command line without `generate.`; empty if nothing does."""
        given = _given(self.sampling, SAMPLING_DEFAULTS)
        general = {name: value for name, value in given.items() if value != SAMPLING_DEFAULTS[name]}
        of_kinds = {
            f"by_kind.{kind}.{name}": value
            for kind, settings in self.by_kind.items()
            for name, value in settings.items()
        }
        return " ".join(
            f"{name}={value:g}" for name, value in {**general, **of_kinds}.items() if value is not None
        )


_LENGTH = ("beats", "seconds", "end")
"""Settings of the length of new music, which a gap has by itself."""


@dataclass(frozen=True)
class GenerationConfig(SamplingSettings):
    """How tokens are sampled and how long pieces get.

    Attributes:
        beats: New beats a piece, at least one.
        seconds: Length of the new music of a piece in seconds, rounded up to whole beats; replaces `beats`.
        end: `model`: a piece is shorter where the model ends it. `never`: the model cannot end a piece.
        tempo_bpm: Tempo of all new beats; None lets the model choose.
        loudness: Level 1 to 8 of the new beats, or a list with one for each, of which the last holds on; None lets the
            model choose. See `pianolm.generation.tilt`.
        density: The same for the number of notes.

    Raises:
        UserError: A value is out of range, or a kind or its setting is unknown.
    """

    beats: int = DEFAULTS.beats
    seconds: float | None = DEFAULTS.seconds
    end: str = DEFAULTS.end
    tempo_bpm: float | None = DEFAULTS.tempo_bpm
    loudness: int | Sequence[int] | None = DEFAULTS.loudness
    density: int | Sequence[int] | None = DEFAULTS.density

    def __post_init__(self) -> None:
        if self.tempo_bpm is not None and not LOWEST_BPM <= self.tempo_bpm <= HIGHEST_BPM:
            raise UserError(f"tempo_bpm={self.tempo_bpm} found, expected {LOWEST_BPM:g} to {HIGHEST_BPM:g}")
        if self.end not in END_CHOICES:
            raise UserError(f"end={self.end!r} found, expected one of {', '.join(END_CHOICES)}")
        _ = self.stopping, self.controls
        super().__post_init__()

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> GenerationConfig:
        """The configuration that the options `generate.*` describe; options that are missing have their defaults."""
        try:
            return cls(**{one.name: options[one.name] for one in fields(cls) if one.name in options})
        except UserError as error:
            raise UserError(f"generate.{error}") from error

    @classmethod
    def of_gaps(cls, options: Mapping[str, Any]) -> GenerationConfig:
        """The same for gaps, whose length is given: the options of length are those of other modes."""
        return cls.from_options({name: value for name, value in options.items() if name not in _LENGTH})

    @property
    def changed_beyond_sampling(self) -> list[str]:
        """Names of the settings of length, tempo and levels that are not the defaults."""
        of_sampling = {one.name for one in fields(SamplingSettings)}
        own = [one for one in fields(self) if one.name not in of_sampling]
        return [one.name for one in own if getattr(self, one.name) != one.default]

    @property
    def controls(self) -> dict[Kind, list[int]]:
        """The levels asked for, those of the first new beats, of which the last one holds on."""
        asked = {kind: getattr(self, name) for kind, name in CONTROL_NAMES.items()}
        return {
            kind: checked_levels(levels, CONTROL_NAMES[kind])
            for kind, levels in asked.items()
            if levels is not None
        }

    @property
    def stopping(self) -> StoppingCriteria:
        """When a piece ends."""
        return StoppingCriteria(self.beats, self.seconds)


def told_of_model(config: SamplingSettings, model: SamplingSettings) -> str:
    """A sentence that says that some of a model's sampling settings hold; empty where none does."""
    if not config.left_of(model).words():
        return ""
    given = config.by_kind or _given(config.sampling, SAMPLING_DEFAULTS)
    replaced = " where no option says otherwise" if given else ""
    return f"samples as the model suggests{replaced}; generate=plain does without"


def planned_sampling(cfg: Mapping[str, Any]) -> list[str]:
    """A line of a plan: which sampling settings of the model that a configuration gives hold.

    Raises:
        UserError: The model's file cannot be read, or an option is out of range.
    """
    given = cfg["upstream"]["model"]
    if given is None:
        return []
    directory = Path(str(given)).expanduser()
    config = GenerationConfig.from_options(cfg["generate"])
    words = config.left_of(SamplingSettings(**read_sampling(directory))).words()
    said = f"{cfg['stage']['name']}: samples with {words}, as {directory / FILE} says; generate=plain does without"
    return [said] if words else []


def _given(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The settings with these names that are not None."""
    return {name: settings[name] for name in names if settings.get(name) is not None}


def _check_kind(kind: str, settings: object) -> None:
    """Raises UserError where the settings of a kind of token are not such settings."""
    if kind not in SAMPLED_KINDS:
        raise UserError(f"by_kind.{kind}: unknown kind of token, expected one of {', '.join(SAMPLED_KINDS)}")
    if not isinstance(settings, Mapping):
        raise UserError(f"by_kind.{kind}={settings!r} found, expected settings such as {{temperature: 0.7}}")
    unknown = sorted(map(str, set(settings) - set(_RULE)))
    if unknown:
        raise UserError(f"by_kind.{kind}.{unknown[0]}: unknown setting, expected one of {', '.join(_RULE)}")
