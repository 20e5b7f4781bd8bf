"""The vocabulary: which token id means what. All code that needs an id asks one `Vocabulary` value.

Shapes: V ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError

EIGHTH_PATTERNS = 377
"""Possible patterns of six frames (silence included): sustain may begin a cell, or follow sustain or an onset."""
DURATION_BINS = 16
"""Bins of the duration that an explicit tie states; their bounds are in `pianolm.tokenizer.ties`."""
TUNINGS = 16
"""Tunings of the tempo scale, each a sixteenth of a step higher than the one before; see `pianolm.tokenizer.tempo`."""


class Kind(IntEnum):
    """Kinds of token. The values index tables; they say nothing about the order of ids."""

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
    DURATION = 13  # duration bin of an explicit tie
    TUNING = 14  # tuning of the tempo scale
    GAP = 15  # mark of a fill sequence: what is left out follows (`pianolm.tokenizer.fill`)
    SUFFIX = 16  # mark of a fill sequence: what comes after the gap follows
    MIDDLE = 17  # mark of a fill sequence: what fills the gap follows
    LOUDNESS = 18  # how loud the beats that follow are (`pianolm.tokenizer.controls`)
    DENSITY = 19  # how many notes they have
    PREFIX = 20  # mark of a fill sequence: what comes before the gap follows


CODE_KINDS = (Kind.L1, Kind.L2, Kind.L3, Kind.L4)
EIGHTHS_OF_KIND = {Kind.L1: 8, Kind.L2: 4, Kind.L3: 2, Kind.L4: 1}
"""Eighths of a beat that one code of each level fills."""
EIGHTHS_BY_KIND = np.array([EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind])
"""[kinds] the same as an array, 0 for kinds that are no codes."""
MARKS = (Kind.BOS, Kind.EOS, Kind.PAD)
FILL_MARKS = (Kind.GAP, Kind.SUFFIX, Kind.PREFIX, Kind.MIDDLE)
"""In the order in which they come in a fill sequence."""
CONTROLS = (Kind.LOUDNESS, Kind.DENSITY)
LEVELS = 8
"""Levels of each control."""

KIND_GROUPS: dict[str, tuple[Kind, ...]] = {
    "tempo": (Kind.TEMPO, Kind.TUNING, Kind.EOS),
    "pitch": (Kind.PITCH,),
    "pattern": CODE_KINDS,
    "velocity": (Kind.VELOCITY,),
    "bar": (Kind.BAR,),
    "duration": (Kind.DURATION,),
}
"""Groups of kinds in metrics (`val/loss_<group>`, `bits_per_note_<group>`), in `by_kind` of sampling and in reports.
EOS belongs to the tempi: both say that a beat has no further cell."""

ALLOTMENT = {
    Kind.L4: EIGHTH_PATTERNS,
    Kind.PEDAL: 64,
    Kind.BAR: 8,
    Kind.DURATION: DURATION_BINS,
    Kind.TUNING: TUNINGS,
    Kind.GAP: 1,
    Kind.SUFFIX: 1,
    Kind.MIDDLE: 1,
    **dict.fromkeys(CONTROLS, LEVELS),
    Kind.PREFIX: 1,  # last, since it came last: it moves no other id, however many are reserved
}
"""Number of reserved ids that each kind takes, in this order as far as the reserved ids reach. The ids of
`Kind.RESERVED` are those left over; they lie before the ids of controls, `TUNING` and `DURATION`, which are the last
reserved ones. `BAR`, `DURATION` and `TUNING` occur only with the options `tokenizer.bars`, `tokenizer.ties=explicit`
and `tokenizer.tempo=log50_tuned`, the marks of `FILL_MARKS` only in fill sequences, `CONTROLS` only where a model is
told how the music is to be; `PEDAL` is not used yet."""


MOST_IDS = 2**16
"""Largest block of ids."""


@dataclass(frozen=True)
class Vocabulary:
    """Sizes of the blocks of ids, in ascending order of ids. The defaults make 4789 ids with BOS, EOS and PAD.

    `ALLOTMENT` divides the reserved ids; the L4 codes take the first 377 of them.
    """

    l1: int = 2048
    l2: int = 1024
    l3: int = 512
    pitch: int = 128
    velocity: int = 512
    reserved: int = 512
    tempo: int = 50

    def __post_init__(self) -> None:
        problems = [f"{name}={value!r}" for name, value in asdict(self).items() if not _is_block_size(value)]
        if problems:
            raise UserError(
                f"tokenizer.vocabulary: {', '.join(problems)} found, expected whole numbers from 1 to {MOST_IDS}"
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
        """First id and size of every kind, in ascending order of ids."""
        learned = {Kind.L1: self.l1, Kind.L2: self.l2, Kind.L3: self.l3}
        allotted, left = {}, self.reserved
        for kind, size in ALLOTMENT.items():
            allotted[kind] = min(size, left)
            left -= allotted[kind]
        last = {kind: allotted.pop(kind) for kind in (*CONTROLS, Kind.TUNING, Kind.DURATION)}
        sizes = {
            **learned,
            Kind.PITCH: self.pitch,
            Kind.VELOCITY: self.velocity,
            **allotted,
            Kind.RESERVED: left,
            **last,
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
        """Id of BOS, the first token of a piece."""
        return self.offset(Kind.BOS)

    @property
    def eos(self) -> int:
        """Id of EOS, the last token of a piece."""
        return self.offset(Kind.EOS)

    @property
    def pad(self) -> int:
        """Id of PAD, which fills rows of a batch."""
        return self.offset(Kind.PAD)

    @property
    def fingerprint(self) -> str:
        """Hash of the layout."""
        return hashlib.sha256(repr(sorted(self.to_dict().items())).encode()).hexdigest()[:16]

    def tuning_id(self, ids: Sequence[int] | NDArray[np.integer]) -> list[int]:
        """The id of the tuning that a well-formed sequence states, first or behind BOS; an empty list if there is none.

        A part of the sequence is read on the same tempo scale if this list stands before it.
        """
        tunings = self.ids(Kind.TUNING)
        return [int(token) for token in ids[:2] if tunings.start <= token < tunings.stop]

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
        """A readable name of one id, such as `pitch 60`, `loudness 5`, or `bar 1` for the first beat of a bar."""
        if not 0 <= token < self.size:
            return f"<{token}: not an id>"
        kind = Kind(self.kind_of[token])
        if kind in MARKS or kind in FILL_MARKS:
            return kind.name
        number = token - self.offset(kind) + (kind is Kind.BAR or kind in CONTROLS)
        return f"{kind.name if kind in CODE_KINDS else kind.name.lower()} {number}"


def _is_block_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_IDS
