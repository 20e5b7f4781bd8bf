"""Controls: tokens that say how loud the music is and how many notes it has.

    tempo cell* loudness? density? tempo cell* …

A control stands before the tempo of the first beat that it speaks of, and holds until the next one of its kind. There
are eight levels of each. Loudness is the mean velocity of the notes that begin in some beats, density how many begin in
a beat on average. Models are told levels at the beginning and where they change (`loader.control_share`), and asked for
them in the same way (`generate.loudness`, `generate.density`).

The bounds of levels divide the music that people play: stretches of 8 beats have levels 3 to 8 of loudness in POP909,
1 to 7 in ASAP, and all levels of density in both.

Shapes: T tokens, N notes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError
from pianolm.tokenizer.vocabulary import CONTROLS, LEVELS, Kind, Vocabulary

Ids = NDArray[np.int64]

LOUDNESS_BOUNDS = (42.0, 54.0, 64.0, 72.0, 80.0, 88.0, 97.0)
"""Mean velocities at which the levels 2 to 8 begin."""
DENSITY_BOUNDS = (1.5, 2.5, 3.5, 4.5, 5.5, 7.0, 9.0)
"""Notes a beat at which the levels 2 to 8 begin."""
LOUDNESS_CENTRES = (34.0, 48.0, 59.0, 68.0, 76.0, 84.0, 92.0, 102.0)
"""A mean velocity in the middle of each level."""
DENSITY_CENTRES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.2, 8.0, 10.5)
"""Notes a beat in the middle of each level."""
CONTROL_NAMES = {Kind.LOUDNESS: "loudness", Kind.DENSITY: "density"}


def loudness_level(velocity: ArrayLike) -> int:
    """Level 1 to 8 of the velocities [N] of some notes, at least one."""
    return 1 + bisect_right(LOUDNESS_BOUNDS, float(np.asarray(velocity, np.float64).mean()))


def density_level(notes: int, beats: int) -> int:
    """Level 1 to 8 of a number of notes in a number of beats."""
    return 1 + bisect_right(DENSITY_BOUNDS, notes / beats)


class Control(NamedTuple):
    """A level that holds from a beat on."""

    beat: int
    kind: Kind
    level: int


def control_id(vocabulary: Vocabulary, kind: Kind, level: int) -> int:
    """The id of a level, 1 to 8."""
    return vocabulary.offset(kind) + level - 1


def insert_controls(vocabulary: Vocabulary, ids: Ids, controls: Sequence[Control]) -> Ids:
    """Puts controls into a plain sequence [T], before the tempi of their beats, which are counted from its first."""
    tempo_at = np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO)
    ordered = sorted(controls, key=lambda one: (one.beat, one.kind))
    tokens = [control_id(vocabulary, one.kind, one.level) for one in ordered]
    return np.insert(ids, tempo_at[[one.beat for one in ordered]], tokens) if ordered else ids


def without_controls(vocabulary: Vocabulary, ids: Ids) -> Ids:
    """Takes controls out of any whole numbers [T]; those that stand where no control may are left."""
    inside = (ids >= 0) & (ids < vocabulary.size)
    kinds = np.append(vocabulary.kind_of[np.where(inside, ids, vocabulary.pad)], Kind.PAD)
    is_density = (kinds[:-1] == Kind.DENSITY) & (kinds[1:] == Kind.TEMPO)
    before_density = np.append(is_density[1:], False)
    is_loudness = (kinds[:-1] == Kind.LOUDNESS) & ((kinds[1:] == Kind.TEMPO) | before_density)
    return ids[~(is_density | is_loudness)]


def controls_in_force(vocabulary: Vocabulary, ids: Sequence[int]) -> list[int]:
    """The last control of each kind in a sequence, as they stand before a tempo; empty where there is none."""
    found = {}
    for kind in CONTROLS:
        block = vocabulary.ids(kind)
        last = next((token for token in reversed(ids) if block.start <= token < block.stop), None)
        if last is not None:
            found[kind] = last
    return [found[kind] for kind in CONTROLS if kind in found]


def check_controls(vocabulary: Vocabulary, exact: bool) -> None:
    """Raises UserError where a tokenizer's layout has no controls."""
    found = ""
    if not exact:
        found = "tokenizer.exact=false found, expected true: the three-level layout"
    elif vocabulary.count(Kind.DENSITY) < LEVELS:
        reserved = f"tokenizer.vocabulary.reserved={vocabulary.reserved}"
        found = f"{reserved} found, expected {Vocabulary().reserved}: the vocabulary"
    if found:
        raise UserError(f"{found} has no ids for controls")


def checked_levels(levels: int | Sequence[int] | NDArray[np.integer], name: str) -> list[int]:
    """The level of each new beat, of which the last one holds on.

    Args:
        levels: One level, or those of the first beats.
        name: How the error calls it.

    Raises:
        UserError: There is none, or one is not a whole number from 1 to 8.
    """
    curve = [levels] if isinstance(levels, int | str) or np.ndim(levels) != 1 else list(levels)
    whole = [int(one) for one in curve if isinstance(one, Integral) and not isinstance(one, bool)]
    if not whole or len(whole) < len(curve) or not all(1 <= one <= LEVELS for one in whole):
        expected = f"a whole number from 1 to {LEVELS}, or a list with one for each new beat"
        raise UserError(f"{name}={levels!r} found, expected {expected}")
    return whole
