"""Verifies that two pieces are the same music: their common shingles in the same order, in one transposition."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.data.works.note_sketch import NoteSketch

_BLOCKS, _BLOCK_NOTES = 24, 16
"""A piece is divided into at most 24 blocks of at least 16 notes, longer than a shingle."""


@dataclass(frozen=True)
class Alignment:
    """Common shingles of two pieces that are in the same order in both.

    Attributes:
        common: Number of shingles in this order and transposition.
        blocks: Number of blocks in which one of them begins, of the piece that has fewer of these.
        coverage: The blocks of the shorter piece in which one begins, as a share of those in which any shingle begins.
        transposition: Semitones from the first to the second piece.
    """

    common: int
    blocks: int
    coverage: float
    transposition: int


def align(a: NoteSketch, b: NoteSketch) -> Alignment:
    """Aligns two pieces by their sketches.

    A repeat left out, a cut or an inserted passage does not matter, because nothing is asked of what lies between two
    common shingles. Figures that any two pieces may have in common lie in few blocks, and rarely in the same order.
    """
    last = min((int(s.hashes[-1]) for s in (a, b) if not s.complete), default=2**32)
    size_a, size_b = (int(np.searchsorted(s.hashes, last, "right")) for s in (a, b))
    hashes_a, hashes_b = a.hashes[:size_a], b.hashes[:size_b]
    if not size_a or not size_b:
        return Alignment(0, 0, 0.0, 0)
    at_b = np.minimum(np.searchsorted(hashes_b, hashes_a), size_b - 1)
    at_a = np.flatnonzero(hashes_b[at_b] == hashes_a)
    at_b = at_b[at_a]
    if not at_a.size:
        return Alignment(0, 0, 0.0, 0)
    shift = b.pitch[at_b].astype(np.int64) - a.pitch[at_a]
    lowest = int(shift.min())
    transposition = int(np.bincount(shift - lowest).argmax()) + lowest
    of_it = shift == transposition
    in_order = of_it.nonzero()[0][np.argsort(a.note[at_a[of_it]], kind="stable")]
    at_a, at_b = at_a[in_order], at_b[in_order]
    chain = longest_ascending(b.note[at_b])
    blocks = [_blocks(s.note[at[chain]], s.notes) for s, at in ((a, at_a), (b, at_b))]
    shorter, size = (0, size_a) if a.notes <= b.notes else (1, size_b)
    possible = _blocks((a, b)[shorter].note[:size], (a, b)[shorter].notes)
    return Alignment(len(chain), min(blocks), blocks[shorter] / possible, transposition)


def _blocks(note: NDArray[np.int32], notes: int) -> int:
    """Number of blocks of a piece in which the given notes lie."""
    count = min(max(notes // _BLOCK_NOTES, 1), _BLOCKS)
    return int(np.unique(note.astype(np.int64) * count // notes).size)


def longest_ascending(values: NDArray[np.int32]) -> list[int]:
    """Indices of a longest strictly ascending subsequence (patience sorting)."""
    ends: list[int] = []  # the smallest last value of a subsequence of each length
    index_of_end: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values.tolist()):
        length = bisect_left(ends, value)
        if length == len(ends):
            ends.append(value)
            index_of_end.append(index)
        else:
            ends[length], index_of_end[length] = value, index
        before.append(index_of_end[length - 1] if length else -1)
    chain = []
    index = index_of_end[-1] if index_of_end else -1
    while index >= 0:
        chain.append(index)
        index = before[index]
    return chain[::-1]
