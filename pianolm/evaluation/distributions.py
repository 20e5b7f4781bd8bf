"""Distributions of what is usual to compare music by, and their Jensen–Shannon distances.

The features are those of Yang and Lerch (2020), "On the evaluation of generative models in music", plus velocity and
tempo. Each piece gives counts; the distribution of several pieces is the sum of theirs.

Shapes: P pieces, K bins, N notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.evaluation.excerpts import within
from pianolm.evaluation.music_statistics import SIXTEENTH
from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece

VELOCITY_BIN_WIDTH = 8
"""Width of the bins of velocities; there are 16. Narrower bins measure sampling noise: two samples of 1000 notes from
one normal distribution have distance 0.07 with these bins and 0.19 with bins of one velocity."""


@dataclass(frozen=True)
class Feature:
    """A feature whose distribution is compared.

    Attributes:
        label: Words for an axis, with the unit.
        edges: [K + 1] ascending edges of the bins; values beyond count in the first or last one.
        values: The values of a piece in beats `first` to `last` − 1.
    """

    label: str
    edges: NDArray[np.float64]
    values: Callable[[Piece, int, int], NDArray[np.generic]]

    def counts(self, piece: Piece, first: int, last: int) -> NDArray[np.int64]:
        """[K] number of a piece's values in each bin."""
        return self.histogram(self.values(piece, first, last))

    def histogram(self, values_N: NDArray[np.generic]) -> NDArray[np.int64]:
        """[K] number of values in each bin."""
        at = np.searchsorted(self.edges[1:-1], values_N, side="right")
        return np.bincount(at, minlength=self.edges.size - 1)


def js_distance(one_K: NDArray[np.generic], other_K: NDArray[np.generic]) -> NDArray[np.float64]:
    """Jensen–Shannon distances of distributions given as counts.

    The square root of the base-2 divergence: 0 for equal and 1 for disjoint distributions (as
    `scipy.spatial.distance.jensenshannon` with base 2).

    Args:
        one_K: [..., K] counts, at least one of them positive in each distribution.
        other_K: [..., K] likewise.

    Returns:
        [...] distances.
    """
    p, q = (counts / counts.sum(-1, keepdims=True) for counts in (one_K, other_K))
    middle = (p + q) / 2
    divergence = np.zeros(middle.shape[:-1])
    for side in (p, q):
        ratio = np.divide(side, middle, out=np.ones_like(middle), where=side > 0)
        divergence += (side * np.log2(ratio)).sum(-1) / 2
    return np.sqrt(np.maximum(divergence, 0))


def _of_notes(
    values: Callable[[NDArray[np.void]], NDArray[np.generic]],
) -> Callable[..., NDArray[np.generic]]:
    return lambda piece, first, last: values(within(piece.frame_notes, first, last))


def _range(notes_N: NDArray[np.void]) -> NDArray[np.generic]:
    pitch = notes_N["pitch"].astype(int)
    return np.array([np.ptp(pitch)]) if pitch.size else pitch


def _notes_of_beats(piece: Piece, first: int, last: int) -> NDArray[np.generic]:
    beat = within(piece.frame_notes, first, last)["onset"] // FRAMES - first
    return np.bincount(beat, minlength=last - first)


def _polyphony(piece: Piece, first: int, last: int) -> NDArray[np.generic]:
    """Number of notes that sound at each sixteenth, those held over from the beats before included."""
    notes = piece.frame_notes
    at = np.arange(first * FRAMES, last * FRAMES, SIXTEENTH)
    begun, over = (np.searchsorted(np.sort(notes[name]), at, side="right") for name in ("onset", "end"))
    return begun - over


def _tempo_bpm(piece: Piece, first: int, last: int) -> NDArray[np.generic]:
    return 60 / np.diff(piece.beats_sec[first : last + 1])


VELOCITY = Feature(
    "velocity", np.arange(0.0, 129, VELOCITY_BIN_WIDTH), _of_notes(lambda notes: notes["velocity"])
)
FEATURES = {
    "pitch_class": Feature("pitch class", np.arange(-0.5, 12), _of_notes(lambda notes: notes["pitch"] % 12)),
    "range": Feature("range of a piece, semitones", np.arange(0.0, 90, 4), _of_notes(_range)),
    "density": Feature("notes struck in a beat", np.arange(-0.5, 17), _notes_of_beats),
    "polyphony": Feature("notes that sound at once", np.arange(-0.5, 13), _polyphony),
    "inter_onset": Feature(
        "beats from onset to onset",
        np.arange(0.5, 50) / 12,
        _of_notes(lambda notes: np.diff(np.unique(notes["onset"])) / FRAMES),
    ),
    "note_length": Feature(
        "length of a note, beats",
        2.0 ** np.arange(-5, 4.5, 0.5),
        _of_notes(lambda notes: (notes["end"] - notes["onset"]) / FRAMES),
    ),
    "velocity": VELOCITY,
    "tempo": Feature("tempo of a beat, BPM", 15 * np.power(1.15, np.arange(26.0)), _tempo_bpm),
}
"""By the name after `js_`."""
