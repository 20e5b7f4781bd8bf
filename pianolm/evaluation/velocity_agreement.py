"""Velocities of two performances, note by note.

Shapes: N notes; M and K those of two performances; P pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes

BIN_WIDTH = 8
"""Velocities a bin of the distributions, which makes 16 bins. Narrower ones measure chance: two samples of 1000 notes
from one normal distribution are 0.07 apart in these and 0.19 in bins of one velocity."""
PAIR_FRAMES = FRAMES // 8
"""How far apart on the beat grid two humans may play a note of the score."""


class Figures(NamedTuple):
    """How near velocities come to others.

    Attributes:
        notes: N.
        mae: Mean absolute difference in MIDI units.
        r: Pearson correlation; 0 where one side has one velocity only.
        js: Jensen–Shannon distance of their distributions in bins of `BIN_WIDTH`: the root of the divergence to base
            2, 0 for equal and 1 for disjoint ones.
    """

    notes: int
    mae: float
    r: float
    js: float


def compare(velocity_N: NDArray[np.uint8], human_N: NDArray[np.uint8]) -> Figures:
    """Velocities held against a human's, note by note; at least one note."""
    one, other = velocity_N.astype(np.float64), human_N.astype(np.float64)
    spread = one.std() * other.std()
    covariance = ((one - one.mean()) * (other - other.mean())).mean()
    return Figures(
        notes=one.size,
        mae=float(np.abs(one - other).mean()),
        r=float(covariance / spread) if spread else 0.0,
        js=_js_distance(velocity_N, human_N),
    )


def _js_distance(one_N: NDArray[np.uint8], other_N: NDArray[np.uint8]) -> float:
    bins = -(-128 // BIN_WIDTH)
    p, q = (np.bincount(side // BIN_WIDTH, minlength=bins) / side.size for side in (one_N, other_N))
    middle = (p + q) / 2
    divergence = sum(
        (side[side > 0] * np.log2(side[side > 0] / middle[side > 0])).sum() / 2 for side in (p, q)
    )
    return float(np.sqrt(max(divergence, 0.0)))


def pair_notes(one_M: FrameNotes, other_K: FrameNotes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Notes [P] of two performances, as indices into each, that are one note of the score.

    They have the same pitch, lie at most `PAIR_FRAMES` apart, and neither lies nearer to another.

    Args:
        one_M: Sorted by (pitch, onset), onsets in frames from a beat of the score.
        other_K: Likewise from the same beat; at least one note each.
    """
    onsets = np.concatenate([one_M["onset"], other_K["onset"]])
    span = (
        int(onsets.max() - onsets.min()) + PAIR_FRAMES + 1
    )  # so that other pitches are further away than that
    one, other = (notes["pitch"].astype(np.int64) * span + notes["onset"] for notes in (one_M, other_K))
    of_one, of_other = _nearest(one, other), _nearest(other, one)
    paired = (of_other[of_one] == np.arange(one.size)) & (np.abs(one - other[of_one]) <= PAIR_FRAMES)
    first = np.flatnonzero(paired)
    return first, of_one[first]


def _nearest(wanted: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of some ascending numbers is nearest to each wanted one, the lower of two."""
    above = np.searchsorted(there, wanted)
    low, high = np.maximum(above - 1, 0), np.minimum(above, there.size - 1)
    return np.where(np.abs(wanted - there[low]) <= np.abs(there[high] - wanted), low, high)
