"""The longest run of notes that a piece shares with other music, such as the training set.

Two runs are equal if they have the same pitches and the same distances between onsets, rounded to sixteenths, so that a
copy is found whatever its tempo and place in the bar. Notes are in order of (sixteenth, pitch).

Shapes: N notes of all pieces one after another, M notes that still begin an equal run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.evaluation.music_statistics import SIXTEENTH
from pianolm.music.cells import FrameNotes


@dataclass(frozen=True)
class NoteRuns:
    """The notes of several pieces, ready to be compared.

    Attributes:
        pitch: [N] uint64, MIDI pitch.
        event: [N] uint64, pitch and distance from the note before.
        end: [N] int64, index of the first note of the next piece.
        piece: [N] int64, number of the piece.
        n_pieces: Number of pieces.
    """

    pitch: NDArray[np.uint64]
    event: NDArray[np.uint64]
    end: NDArray[np.int64]
    piece: NDArray[np.int64]
    n_pieces: int

    @classmethod
    def of(cls, pieces: Iterable[FrameNotes]) -> NoteRuns:
        """Puts the notes of pieces in order."""
        pitches, events = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for notes in pieces:
            at = np.rint(notes["onset"] / SIXTEENTH).astype(np.int64)
            order = np.lexsort((notes["pitch"], at))
            pitches.append(notes["pitch"][order].astype(np.uint64))
            distance = np.diff(at[order], prepend=0).astype(np.uint64)
            events.append((distance << np.uint64(8)) | pitches[-1])
        sizes = [pitch.size for pitch in pitches[1:]]
        number = np.repeat(np.arange(len(sizes)), sizes)
        pitch = np.concatenate(pitches)
        return cls(pitch, np.concatenate(events), np.cumsum(sizes)[number], number, len(sizes))

    def longest_in(self, other: NoteRuns) -> NDArray[np.int64]:
        """[pieces] number of notes of the longest run of each piece that also occurs in a piece of `other`.

        Runs of 1, 2, 3, … notes are compared by 64-bit hashes; those without an equal are not extended, so the work
        falls quickly with the length.
        """
        longest = np.zeros(self.n_pieces, np.int64)
        ours, theirs = _Runs(self), _Runs(other)
        length = 0
        while True:
            theirs.keep(ours.hashes)
            ours.keep(theirs.hashes)
            if not ours.hashes.size:
                return longest
            length += 1
            longest[self.piece[ours.first]] = length
            ours.extend(length)
            theirs.extend(length)


class _Runs:
    """Runs of one length: first note and hash of each."""

    def __init__(self, notes: NoteRuns) -> None:
        self._notes = notes
        self.first = np.arange(notes.pitch.size)
        self.hashes = _mixed(notes.pitch)  # the first note counts without its distance

    def keep(self, hashes_M: NDArray[np.uint64]) -> None:
        """Drops the runs whose hash is not among those."""
        known = np.unique(hashes_M)
        if not known.size:
            self.first, self.hashes = self.first[:0], self.hashes[:0]
            return
        at = np.minimum(np.searchsorted(known, self.hashes), known.size - 1)
        kept = known[at] == self.hashes
        self.first, self.hashes = self.first[kept], self.hashes[kept]

    def extend(self, length: int) -> None:
        """Makes the runs one note longer; those at the end of a piece are dropped."""
        goes_on = self.first + length < self._notes.end[self.first]
        self.first = self.first[goes_on]
        event = self._notes.event[self.first + length]
        self.hashes = _mixed(self.hashes[goes_on] * np.uint64(0x9E3779B97F4A7C15) + event)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads numbers over 64 bits (splitmix64)."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
