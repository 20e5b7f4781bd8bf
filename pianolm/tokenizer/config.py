"""The settings of a tokenizer: their rules, and `tokenizer.json`, in which a saved tokenizer keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pianolm.errors import UserError
from pianolm.json_file import read_object
from pianolm.tokenizer.tempo import SCHEMES
from pianolm.tokenizer.ties import TIES
from pianolm.tokenizer.vocabulary import ALLOTMENT, Kind, Vocabulary

FORMAT_VERSION = 1
"""Format of saved tokenizers; files of any other are refused."""
SETTINGS_FILE = "tokenizer.json"
MODES = ("velocity", "base")
"""Values of `tokenizer.mode`."""


@dataclass(frozen=True)
class TokenizerSettings:
    """What determines a tokenizer beside its codebook and its velocity codec.

    Attributes:
        mode: `velocity`, or `base`, which has no velocity tokens.
        ties: How a note held over from the beat before is written: `repeat` (a cell like any other), `implicit` (codes
            alone) or `explicit` (duration bin, pitch, codes); see `pianolm.tokenizer.ties`.
        bars: Whether a beat states its position in the bar, 1 to 8, if the piece has downbeats; 8 stands for all later
            positions, too.
        tempo: Scheme of the tempo bins; see `pianolm.tokenizer.tempo.TempoBins`.
        exact: Whether a quarter that L3 lacks takes exact L4 codes. Without it there are three levels and such a
            quarter takes the nearest L3 code; then no id of the reserved block occurs, so this excludes ties, bars and
            tunings.
        vocabulary: Number of ids of each kind.

    Raises:
        UserError: A setting has an unknown value, does not fit another, or needs ids that the vocabulary lacks.
    """

    mode: str = "velocity"
    ties: str = "repeat"
    bars: bool = False
    tempo: str = "log50"
    exact: bool = True
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def __post_init__(self) -> None:
        for name, known in (
            ("mode", MODES),
            ("ties", TIES),
            ("tempo", SCHEMES),
            ("bars", _BOOL),
            ("exact", _BOOL),
        ):
            value = getattr(self, name)
            if value not in known or (known is _BOOL and not isinstance(value, bool)):
                expected = "true or false" if known is _BOOL else f"one of {', '.join(map(str, known))}"
                raise UserError(f"tokenizer.{name}={value!r} found, expected {expected}")
        tuned = self.tempo == "log50_tuned"
        if not self.exact and (self.ties != "repeat" or self.bars or tuned):
            found = f"tokenizer.ties={self.ties}, tokenizer.bars={str(self.bars).lower()}"
            raise UserError(
                f"tokenizer.exact=false found with {found}, tokenizer.tempo={self.tempo}, expected ties=repeat, "
                "bars=false and tempo=log50 or published: the three-level layout has no ids for them"
            )
        if self.bars:
            self._need_ids("bars=true", Kind.BAR)
        if self.ties == "explicit":
            self._need_ids("ties=explicit", Kind.DURATION)
        if tuned:
            self._need_ids("tempo=log50_tuned", Kind.TUNING)

    def _need_ids(self, option: str, kind: Kind) -> None:
        """Raises UserError where the vocabulary has no room for a kind that an option needs."""
        if self.vocabulary.count(kind) < ALLOTMENT[kind]:
            kinds = list(ALLOTMENT)
            needed = sum(ALLOTMENT[other] for other in kinds[: kinds.index(kind) + 1])
            raise UserError(
                f"tokenizer.{option}: tokenizer.vocabulary.reserved={self.vocabulary.reserved} found, expected at "
                f"least {needed}, of which {ALLOTMENT[kind]} are for this option"
            )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TokenizerSettings:
        """Settings from the configuration group `tokenizer` or a saved file; keys left out take their default."""
        known = {name: settings[name] for name in SETTING_NAMES if name in settings}
        if "vocabulary" in known:
            if not isinstance(known["vocabulary"], Mapping):
                raise UserError(f"tokenizer.vocabulary={known['vocabulary']!r} found, expected sizes by name")
            known["vocabulary"] = Vocabulary.from_dict(dict(known["vocabulary"]))
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        values = {name: getattr(self, name) for name in SETTING_NAMES}
        return {**values, "vocabulary": self.vocabulary.to_dict()}

    @property
    def layout(self) -> str:
        """Names the options that change what a sequence looks like; empty for the default layout."""
        return (
            ("-bars" if self.bars else "")
            + ("" if self.ties == "repeat" else f"-{self.ties}")
            + ("" if self.exact else "-three-levels")
        )

    def save(self, directory: Path, hashes: Mapping[str, str]) -> None:
        """Writes `tokenizer.json` with content hashes of the tokenizer's parts."""
        saved = {"format_version": FORMAT_VERSION, **self.to_dict(), "hashes": dict(hashes)}
        (directory / SETTINGS_FILE).write_text(json.dumps(saved, indent=2) + "\n")


_BOOL = (True, False)
SETTING_NAMES = tuple(field.name for field in fields(TokenizerSettings))


def tokenizer_directory(directory: str | Path) -> Path:
    """The directory itself if it holds a saved tokenizer, or the folder `tokenizer` in it.

    Raises:
        UserError: Neither holds one.
    """
    directory = Path(directory)
    for candidate in (directory, directory / "tokenizer"):
        if (candidate / SETTINGS_FILE).is_file():
            return candidate
    raise UserError(
        f"{directory}: no {SETTINGS_FILE} found there or in its folder `tokenizer`; expected a saved tokenizer"
    )


def read_settings(directory: Path) -> dict[str, Any]:
    """The content of a tokenizer directory's `tokenizer.json`: the settings by name, and `hashes`.

    Raises:
        UserError: It cannot be read, is of another format, or lacks a key.
    """
    path = directory / SETTINGS_FILE
    saved = read_object(path)
    names, version = set(saved), saved.get("format_version", FORMAT_VERSION)
    expected = {"format_version", *SETTING_NAMES, "hashes"}
    if not isinstance(saved.get("hashes", {}), dict):
        raise UserError(f"{path}: hashes={saved['hashes']!r} found, expected hashes by name")
    if version != FORMAT_VERSION or names != expected:
        problems = [] if version == FORMAT_VERSION else [f"format {version} found, expected {FORMAT_VERSION}"]
        problems += [f"lacks {name}" for name in sorted(expected - names)]
        problems += [f"unknown {name}" for name in sorted(names - expected)]
        raise UserError(f"{path}: {', '.join(problems)}; build the tokenizer again with stage=tokenize")
    return saved
