"""Compares the velocities of two performances note by note.

Shapes: N notes; M and K those of two performances; P pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.evaluation.distributions import VELOCITY, js_distance
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes

PAIR_FRAMES = FRAMES // 8
"""Most frames between the onsets at which two pianists play the same note of the score."""


class Agreement(NamedTuple):
    """Agreement of velocities with those of a pianist.

    Attributes:
        notes: N.
        mae: Mean absolute difference in MIDI units.
        r: Pearson correlation; 0 if one side has a single velocity.
        js: Jensen–Shannon distance of the two distributions in bins of `VELOCITY_BIN_WIDTH` (see
            `pianolm.evaluation.distributions.js_distance`).
    """

    notes: int
    mae: float
    r: float
    js: float


def compare(velocity_N: NDArray[np.uint8], human_N: NDArray[np.uint8]) -> Agreement:
    """Compares velocities with a pianist's for the same notes; N is at least 1."""
    one, other = velocity_N.astype(np.float64), human_N.astype(np.float64)
    spread = one.std() * other.std()
    covariance = ((one - one.mean()) * (other - other.mean())).mean()
    return Agreement(
        notes=one.size,
        mae=float(np.abs(one - other).mean()),
        r=float(covariance / spread) if spread else 0.0,
        js=float(js_distance(*(VELOCITY.histogram(side) for side in (velocity_N, human_N)))),
    )


def pair_notes(one_M: FrameNotes, other_K: FrameNotes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs notes of two performances that are the same note of the score.

    Paired notes have the same pitch, are at most `PAIR_FRAMES` apart and are each other's nearest.

    Args:
        one_M: At least one note, sorted by (pitch, onset), onsets in frames from a beat of the score.
        other_K: The same for the other performance, onsets from the same beat.

    Returns:
        Indices [P] into both.
    """
    onsets = np.concatenate([one_M["onset"], other_K["onset"]])
    # A pitch step is larger than any difference of onsets that is paired.
    span = int(onsets.max() - onsets.min()) + PAIR_FRAMES + 1
    one, other = (notes["pitch"].astype(np.int64) * span + notes["onset"] for notes in (one_M, other_K))
    of_one, of_other = _nearest(one, other), _nearest(other, one)
    paired = (of_other[of_one] == np.arange(one.size)) & (np.abs(one - other[of_one]) <= PAIR_FRAMES)
    first = np.flatnonzero(paired)
    return first, of_one[first]


def _nearest(values: NDArray[np.int64], sorted_values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the nearest of `sorted_values` to each value, the lower of two equally near."""
    above = np.searchsorted(sorted_values, values)
    low, high = np.maximum(above - 1, 0), np.minimum(above, sorted_values.size - 1)
    return np.where(np.abs(values - sorted_values[low]) <= np.abs(sorted_values[high] - values), low, high)
