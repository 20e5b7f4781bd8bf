"""Finds another performance of the same notes, so that a model can be compared with a second pianist.

Shapes: N notes in order of (pitch, onset); P notes that both performances have.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.evaluation.velocity_agreement import pair_notes
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes, cells_to_frames

MIN_PAIRED_FRACTION = 0.75
"""Least fraction of a piece's notes that must have a partner: below it, two performances with equal numbers of beats do
not follow the same beats throughout."""


class SecondPianist(NamedTuple):
    """Another performance of a composition.

    Attributes:
        id: Id of the performance.
        paired: [P] indices of the first performance's notes that it also has.
        velocity: [P] its velocities of these notes.
    """

    id: str
    paired: NDArray[np.int64]
    velocity: NDArray[np.uint8]


class SecondPianists:
    """The performances of each composition of a store.

    Versions are searched within a data set, since two data sets may contain the same recording.
    """

    def __init__(self, store: CellStore) -> None:
        self._store = store
        self._versions: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, row in enumerate(store.pieces):
            if row.kind == "performance" and not row.flat:
                self._versions[row.source, row.composition].append(index)

    def find(self, index: int, notes_N: FrameNotes) -> SecondPianist | None:
        """A second pianist for some notes of performance `index`: the next version in stored order that fits."""
        row = self._store.pieces[index]
        versions = self._versions[row.source, row.composition]
        at = versions.index(index)
        for other in (*versions[at + 1 :], *versions[:at]):
            pianist = self._pair(index, notes_N, other)
            if pianist is not None:
                return pianist
        return None

    def _pair(self, index: int, notes_N: FrameNotes, other: int) -> SecondPianist | None:
        """None if the two do not follow the same beats of the score, or are the same recording."""
        (first, count), (other_first, other_count) = (self._annotated_beats(i) for i in (index, other))
        if count != other_count:
            return None
        other_notes = cells_to_frames(self._store.cells(other))
        paired, other_paired = pair_notes(_from_beat(notes_N, first), _from_beat(other_notes, other_first))
        velocity_P = other_notes["velocity"][other_paired]
        same_recording = np.array_equal(velocity_P, notes_N["velocity"][paired])
        if paired.size < MIN_PAIRED_FRACTION * notes_N.size or same_recording:
            return None
        return SecondPianist(self._store.pieces[other].id, paired, velocity_P)

    def _annotated_beats(self, index: int) -> tuple[int, int]:
        """First annotated beat of the grid and number of annotated beats; all beats where no downbeat is known."""
        annotated = np.flatnonzero(self._store.downbeat(index) >= 0)
        if annotated.size:
            return int(annotated[0]), annotated.size
        return 0, self._store.pieces[index].beats + 1


def _from_beat(notes: FrameNotes, beat: int) -> FrameNotes:
    """The notes with onsets in frames from a beat."""
    moved = notes.copy()
    moved["onset"] -= beat * FRAMES
    return moved
