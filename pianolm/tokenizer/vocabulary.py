"""The vocabulary: which id means what. Everything that needs an id asks one `Vocabulary` value."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.tokenizer.ages import AGES

EIGHTH_PATTERNS = 377
"""Possible patterns of six frames (silence included): sustain may begin a cell, or follow sustain or an onset."""


class Kind(IntEnum):
    """Kinds of token, in no particular order of ids."""

    L1 = 0
    L2 = 1
    L3 = 2
    PITCH = 3
    VELOCITY = 4
    L4 = 5
    RESERVED = 6
    TEMPO = 7
    BOS = 8
    EOS = 9
    PAD = 10
    BAR = 11
    PEDAL = 12
    AGE = 13


CODE_KINDS = (Kind.L1, Kind.L2, Kind.L3, Kind.L4)
EIGHTHS_OF_KIND = {Kind.L1: 8, Kind.L2: 4, Kind.L3: 2, Kind.L4: 1}
"""How many eighths of a beat one code of each level fills."""

KIND_GROUPS: dict[str, tuple[Kind, ...]] = {
    "tempo": (Kind.TEMPO, Kind.EOS),
    "pitch": (Kind.PITCH,),
    "pattern": CODE_KINDS,
    "velocity": (Kind.VELOCITY,),
    "bar": (Kind.BAR,),
    "duration": (Kind.AGE,),
}
"""Groups of kinds in metrics (`val/loss_<group>`, `bits_per_note_<group>`). EOS belongs to the tempi: both say that a
beat has no further cell."""

ALLOTMENT = {Kind.L4: EIGHTH_PATTERNS, Kind.PEDAL: 64, Kind.BAR: 8, Kind.AGE: AGES}
"""How many of the reserved ids each kind takes, in this order as far as there are any; `Kind.RESERVED` are those left,
and `AGE` stands behind them. `BAR` says a beat's position in its bar and `AGE` how long a pitch has sounded that sounds
on, where the tokenizer has them; `PEDAL` is put by for the sustain pedal, which no token says yet."""
MARKS = (Kind.BOS, Kind.EOS, Kind.PAD)


@dataclass(frozen=True)
class Vocabulary:
    """Sizes of the blocks of ids, in the order they lie. The defaults make 4789 ids.

    Of the reserved ids `ALLOTMENT` says what they are for; the L4 codes take the first 377.
    """

    l1: int = 2048
    l2: int = 1024
    l3: int = 512
    pitch: int = 128
    velocity: int = 512
    reserved: int = 512
    tempo: int = 50

    def __post_init__(self) -> None:
        problems = [
            f"{name}={value!r}" for name, value in asdict(self).items() if not _is_positive_int(value)
        ]
        if problems:
            raise UserError(
                f"tokenizer.vocabulary: {', '.join(problems)} found, expected whole numbers of at least 1"
            )
        if self.pitch != 128:
            raise UserError(
                f"tokenizer.vocabulary.pitch={self.pitch} found, expected 128, the pitches of MIDI"
            )
        if self.reserved < EIGHTH_PATTERNS:
            raise UserError(
                f"tokenizer.vocabulary.reserved={self.reserved} found, expected at least {EIGHTH_PATTERNS}, "
                "which the eighth-beat patterns (L4) take"
            )

    @cached_property
    def _blocks(self) -> dict[Kind, tuple[int, int]]:
        """First id and size of every kind, in the order they lie."""
        learned = {Kind.L1: self.l1, Kind.L2: self.l2, Kind.L3: self.l3}
        allotted, left = {}, self.reserved
        for kind, size in ALLOTMENT.items():
            allotted[kind] = min(size, left)
            left -= allotted[kind]
        ages = allotted.pop(Kind.AGE)
        sizes = {
            **learned,
            Kind.PITCH: self.pitch,
            Kind.VELOCITY: self.velocity,
            **allotted,
            Kind.RESERVED: left,
            Kind.AGE: ages,
            Kind.TEMPO: self.tempo,
            **dict.fromkeys(MARKS, 1),
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        return {kind: (end - size, size) for (kind, size), end in zip(sizes.items(), ends, strict=True)}

    def offset(self, kind: Kind) -> int:
        """First id of a kind."""
        return self._blocks[kind][0]

    def count(self, kind: Kind) -> int:
        """Number of ids of a kind."""
        return self._blocks[kind][1]

    def ids(self, kind: Kind) -> slice:
        """The ids of a kind as a slice."""
        start, size = self._blocks[kind]
        return slice(start, start + size)

    @cached_property
    def size(self) -> int:
        """Number of ids."""
        return sum(self.count(kind) for kind in Kind)

    @cached_property
    def kind_of(self) -> NDArray[np.uint8]:
        """[V] the `Kind` of every id."""
        kinds = np.empty(self.size, np.uint8)
        for kind in Kind:
            kinds[self.ids(kind)] = kind
        return kinds

    @property
    def bos(self) -> int:
        """Begins a piece."""
        return self.offset(Kind.BOS)

    @property
    def eos(self) -> int:
        """Ends a piece."""
        return self.offset(Kind.EOS)

    @property
    def pad(self) -> int:
        """Fills the tail of a window."""
        return self.offset(Kind.PAD)

    @property
    def fingerprint(self) -> str:
        """Hash of the layout."""
        return hashlib.sha256(repr(sorted(self.to_dict().items())).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, int]:
        """Block sizes by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, sizes: dict[str, Any]) -> Vocabulary:
        """The vocabulary with these block sizes.

        Raises:
            UserError: An unknown block, or a size that is no positive whole number.
        """
        unknown = sorted(set(sizes) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise UserError(f"tokenizer.vocabulary: unknown {', '.join(unknown)}; known are {known}")
        return cls(**sizes)

    def describe(self, token: int) -> str:
        """A readable name of one id, such as `pitch 60`, `L2 17`, or `bar 1` for the first beat of a bar."""
        if not 0 <= token < self.size:
            return f"<{token}: not an id>"
        kind = Kind(self.kind_of[token])
        if kind in MARKS:
            return kind.name
        number = token - self.offset(kind) + (kind is Kind.BAR)
        return f"{kind.name if kind in CODE_KINDS else kind.name.lower()} {number}"


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
