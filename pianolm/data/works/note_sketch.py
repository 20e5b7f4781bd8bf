"""What is kept of a piece's notes to find the same music in other pieces: shingles of intervals in its outer lines.

The top line has the notes with no higher note within `TOGETHER_SEC`, the bottom line those with no lower one: chords
count once, however they are rolled, and tempo does not matter. A shingle is `INTERVALS` successive intervals of a line,
so it is the same in all transpositions, and a wrong note or an ornament changes only the shingles around it. Quantised
ratios of inter-onset times made the shingles of two performances less alike (see experiments/works), so there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pianolm.music.notes import Notes

TOGETHER_SEC = 0.06
"""Notes whose onsets are closer count as one chord."""
INTERVALS = 6
SIGNATURE = 64
"""Values of a MinHash signature."""
_WIDEST = 24
"""Wider intervals, in semitones, are taken for this one."""
_LEAST_DIFFERENT = 3
"""Shingles with fewer different intervals (trills, scales, repeated notes) are in too many pieces to say anything."""
_CHORD_NOTES = 12
"""Notes on either side that a note is compared with."""
_KEPT = 512
"""Shingles kept of each piece, those with the smallest hashes, so that two pieces keep the same ones."""


@dataclass(frozen=True, eq=False)
class NoteSketch:
    """Some of a piece's shingles, and the MinHash signature of all of them.

    Attributes:
        hashes: [H] uint32, ascending: hashes of the different shingles, at most 512.
        note: [H] int32, index of the note at which each begins for the first time.
        pitch: [H] uint8, pitch of that note.
        notes: Number of notes of the piece.
        complete: Whether the hashes are those of all shingles.
        signature: [64] uint32, MinHash of all shingles.
    """

    hashes: NDArray[np.uint32]
    note: NDArray[np.int32]
    pitch: NDArray[np.uint8]
    notes: int
    complete: bool
    signature: NDArray[np.uint32]


def sketch_notes(notes: Notes) -> NoteSketch:
    """The sketch of a piece.

    Args:
        notes: [N] notes (`pianolm.music.notes.NOTE_DTYPE`) in the order of their onsets.
    """
    onset, pitch = np.ascontiguousarray(notes["onset_sec"]), notes["pitch"].astype(np.int16)
    top, bottom = outer_line(onset, pitch), outer_line(onset, -pitch)
    parts = [_shingles(pitch, line, which) for which, line in enumerate((top, bottom))]
    hashes, note = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    hashes, first = np.unique(hashes, return_index=True)
    note = note[first].astype(np.int32)
    return NoteSketch(
        hashes=hashes[:_KEPT],
        note=note[:_KEPT],
        pitch=notes["pitch"][note[:_KEPT]],
        notes=notes.size,
        complete=hashes.size <= _KEPT,
        signature=_signature(hashes),
    )


def outer_line(onset_sec: NDArray[np.float64], height: NDArray[np.int16]) -> NDArray[np.intp]:
    """Indices of the notes that have no higher note within `TOGETHER_SEC`; of equal ones the first.

    Args:
        onset_sec: [N] ascending.
        height: [N] pitch, or its negative for the bottom line.
    """
    kept = np.ones(onset_sec.size, bool)
    for step in range(1, min(_CHORD_NOTES, onset_sec.size)):
        together = onset_sec[step:] - onset_sec[:-step] <= TOGETHER_SEC
        if not together.any():
            break
        kept[:-step] &= ~(together & (height[step:] > height[:-step]))
        kept[step:] &= ~(together & (height[step:] <= height[:-step]))
    return np.flatnonzero(kept)


def _shingles(
    pitch: NDArray[np.int16], line: NDArray[np.intp], which: int
) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """[H] hashes of a line's shingles, and [H] indices of the notes at which they begin."""
    if line.size <= INTERVALS:
        return np.zeros(0, np.uint32), np.zeros(0, np.intp)
    interval = np.clip(np.diff(pitch[line]), -_WIDEST, _WIDEST) + _WIDEST
    window_HI = sliding_window_view(interval, INTERVALS)
    different = 1 + (np.diff(np.sort(window_HI, axis=1), axis=1) != 0).sum(axis=1)
    telling = np.flatnonzero(different >= _LEAST_DIFFERENT)
    number = np.full(telling.size, which, np.uint64)
    for column in window_HI[telling].T:
        number = number * np.uint64(2 * _WIDEST + 1) + column.astype(np.uint64)
    return _mixed(number), line[telling]


def _mixed(number: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Spreads numbers evenly over 32 bits (the finalizer of MurmurHash3)."""
    number = (number ^ (number >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    number = (number ^ (number >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return (number >> np.uint64(32)).astype(np.uint32)


@cache
def _permutations() -> NDArray[np.uint32]:
    from datasketch import MinHash  # here, because it imports scipy, which takes half a second

    permutations: NDArray[np.uint32] = MinHash(SIGNATURE).permutations
    return permutations


def _signature(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    from datasketch import MinHash

    minhash = MinHash(SIGNATURE, permutations=_permutations(), scheme="affine32", hashfunc=int)
    minhash.update_batch(hashes.tolist())
    signature: NDArray[np.uint32] = minhash.hashvalues
    return signature
