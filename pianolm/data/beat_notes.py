"""Pieces as notes counted in beats: what the beat tracker and the dynamics model learn from.

Shapes: N notes, B beats (a grid has B + 1 beat times), D bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes, cells_to_frames

_STRICT_STEPS = 12
"""Steps of a beat in strict time: sixteenths and the triplets of eighths lie on them."""


@dataclass(frozen=True)
class BeatNotes:
    """The notes and bars of a piece counted in beats, and the beat times that it came with.

    Attributes:
        onset_beat: [N] ascending; notes struck together ascend in pitch.
        end_beat: [N].
        pitch: [N].
        velocity: [N].
        beats_sec: [B + 1].
        bar_start: [D] ascending indices of the beats at which a bar starts; empty if unknown.
        is_score: Whether it is a score: in strict time, and with velocities that no one played.
    """

    onset_beat: NDArray[np.float64]
    end_beat: NDArray[np.float64]
    pitch: NDArray[np.int64]
    velocity: NDArray[np.int64]
    beats_sec: NDArray[np.float64]
    bar_start: NDArray[np.intp]
    is_score: bool

    @classmethod
    def of_store(cls, store: CellStore, index: int) -> BeatNotes:
        """Reads a piece of a store."""
        return cls.of_frames(
            cells_to_frames(store.cells(index)),
            np.array(store.beats_sec(index)),
            store.bar_starts(index),
            is_score=store.pieces[index].kind == "score",
        )

    @classmethod
    def of_frames(
        cls,
        notes: FrameNotes,
        beats_sec: NDArray[np.float64],
        bar_start: NDArray[np.intp],
        is_score: bool = False,
    ) -> BeatNotes:
        """Takes notes on the grid, in any order."""
        notes = notes[onset_order(notes)]
        return cls(
            onset_beat=notes["onset"] / FRAMES,
            end_beat=notes["end"] / FRAMES,
            pitch=notes["pitch"].astype(np.int64),
            velocity=notes["velocity"].astype(np.int64),
            beats_sec=beats_sec,
            bar_start=bar_start,
            is_score=is_score,
        )

    @property
    def n_beats(self) -> int:
        """Number of beats of the grid."""
        return self.beats_sec.size - 1

    def seconds(self, beat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Times of places in beats, on the beat times that the piece came with."""
        return np.interp(beat, np.arange(self.beats_sec.size), self.beats_sec)

    def in_strict_time(self) -> BeatNotes:
        """The notes as a score has them: on a grid of 1/12 beat, at least one step long, in the median tempo.

        Notes that move beyond the last beat end there. Fast repetitions of a pitch may begin together.
        """
        onset = np.rint(self.onset_beat * _STRICT_STEPS) / _STRICT_STEPS
        end = np.rint(self.end_beat * _STRICT_STEPS) / _STRICT_STEPS
        onset = np.minimum(onset, self.n_beats - 1 / _STRICT_STEPS)
        end = np.clip(end, onset + 1 / _STRICT_STEPS, self.n_beats)
        order = np.lexsort((self.pitch, onset))
        return replace(
            self,
            onset_beat=onset[order],
            end_beat=end[order],
            pitch=self.pitch[order],
            velocity=self.velocity[order],
            beats_sec=float(np.median(np.diff(self.beats_sec)))
            * np.arange(self.beats_sec.size, dtype=np.float64),
        )


def onset_order(notes: FrameNotes) -> NDArray[np.intp]:
    """[N] indices that sort notes by onset, and notes struck together by pitch."""
    return np.lexsort((notes["pitch"], notes["onset"]))
