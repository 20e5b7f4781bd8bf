"""Settings of generation: how each token is sampled, and when a piece ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from pianolm.config.generate import END_CHOICES, GenerateConfig
from pianolm.errors import UserError
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

    temperature: float = DEFAULTS.temperature
    top_k: int = DEFAULTS.top_k
    top_p: float = DEFAULTS.top_p
    min_p: float = DEFAULTS.min_p

    def __post_init__(self) -> None:
        checks = {
            "temperature": (lambda value: 0 <= value < math.inf, "0 (most likely token) or more"),
            "top_k": (lambda value: value >= 0 and value == int(value), "0 (off) or a larger whole number"),
            "top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
            "min_p": (lambda value: 0 <= value <= 1, "0 (off) to 1"),
        }
        for name, (is_valid, expected) in checks.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not is_valid(value):
                raise UserError(f"{name}={value!r} found, expected {expected}")


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
class GenerationConfig:
    """How tokens are sampled and how long pieces get.

    The kind of the next token (another note, the next beat, the end) is always sampled with the general settings; the
    token among those of that kind, with the settings of the kind.

    Attributes:
        beats: New beats a piece, at least one.
        seconds: Length of the new music of a piece in seconds, rounded up to whole beats; replaces `beats`.
        end: `model`: a piece is shorter where the model ends it. `never`: the model cannot end a piece.
        tempo_bpm: Tempo of all new beats; None lets the model choose.
        temperature: See `SamplingRule`, as for the next three.
        top_p: See `SamplingRule`.
        top_k: See `SamplingRule`.
        min_p: See `SamplingRule`.
        repeat: Added to the logit of a pitch that followed at the same place of all earlier bars; see
            `pianolm.generation.repetition`. 0 is off.
        by_kind: Settings of single kinds of token that differ from the general ones, such as
            `{"tempo": {"temperature": 0.7}}`. The kinds are those of `SAMPLED_KINDS`.

    Raises:
        UserError: A value is out of range, or a kind or its setting is unknown.
    """

    beats: int = DEFAULTS.beats
    seconds: float | None = DEFAULTS.seconds
    end: str = DEFAULTS.end
    tempo_bpm: float | None = DEFAULTS.tempo_bpm
    temperature: float = DEFAULTS.temperature
    top_p: float = DEFAULTS.top_p
    top_k: int = DEFAULTS.top_k
    min_p: float = DEFAULTS.min_p
    repeat: float = DEFAULTS.repeat
    by_kind: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.tempo_bpm is not None and not LOWEST_BPM <= self.tempo_bpm <= HIGHEST_BPM:
            raise UserError(f"tempo_bpm={self.tempo_bpm} found, expected {LOWEST_BPM:g} to {HIGHEST_BPM:g}")
        if self.end not in END_CHOICES:
            raise UserError(f"end={self.end!r} found, expected one of {', '.join(END_CHOICES)}")
        if not 0 <= self.repeat < math.inf:
            raise UserError(f"repeat={self.repeat} found, expected 0 (off) or more")
        _ = self.stopping, self.rule
        for kind, settings in self.by_kind.items():
            _check_kind(kind, settings)
            self.rule_of(kind)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> GenerationConfig:
        """The configuration that the options `generate.*` describe; settings of a kind that are null are left out.

        Options that are missing have their defaults.
        """
        by_kind = {
            kind: {key: value for key, value in settings.items() if value is not None}
            if isinstance(settings, Mapping)
            else settings
            for kind, settings in options["by_kind"].items()
        }
        names = [one.name for one in fields(cls) if one.name != "by_kind"]
        try:
            return cls(**{name: options[name] for name in names if name in options}, by_kind=by_kind)
        except UserError as error:
            raise UserError(f"generate.{error}") from error

    @property
    def stopping(self) -> StoppingCriteria:
        """When a piece ends."""
        return StoppingCriteria(self.beats, self.seconds)

    @property
    def rule(self) -> SamplingRule:
        """The general sampling settings."""
        return SamplingRule(self.temperature, self.top_k, self.top_p, self.min_p)

    def rule_of(self, kind: str) -> SamplingRule:
        """The sampling settings of one kind of token."""
        try:
            return replace(self.rule, **self.by_kind.get(kind, {}))  # type: ignore[arg-type]  # names are checked above
        except UserError as error:
            raise UserError(f"by_kind.{kind}.{error}") from error


def _check_kind(kind: str, settings: object) -> None:
    """Raises UserError where the settings of a kind of token are not such settings."""
    known = [one.name for one in fields(SamplingRule)]
    if kind not in SAMPLED_KINDS:
        raise UserError(f"by_kind.{kind}: unknown kind of token, expected one of {', '.join(SAMPLED_KINDS)}")
    if not isinstance(settings, Mapping):
        raise UserError(f"by_kind.{kind}={settings!r} found, expected settings such as {{temperature: 0.7}}")
    unknown = sorted(map(str, set(settings) - set(known)))
    if unknown:
        raise UserError(f"by_kind.{kind}.{unknown[0]}: unknown setting, expected one of {', '.join(known)}")
