"""Bars on a beat grid: the beats at which bars start ↔ the position of every beat in its bar.

Shapes: B beats of a grid (it has B + 1 beat times), D bars.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0
"""Position of a beat whose place in its bar is unknown."""
_NEAR_SEC = 1e-6
DEFAULT_BAR_BEATS = 4
"""Length of bars where none are known."""


def bar_starts(beats_sec: NDArray[np.float64], downbeats_sec: NDArray[np.float64] | None) -> NDArray[np.intp]:
    """Finds the beats nearest to the downbeats.

    Args:
        beats_sec: [B + 1] beat times.
        downbeats_sec: [D] times of the bars' first beats in seconds; None if unknown. Those outside the grid are
            ignored.

    Returns:
        [D'] ascending indices of the beats at which a bar starts, 0 … B. B is included because the last beat time
        may be the downbeat that ends the last bar. Empty if no downbeats are known.
    """
    if downbeats_sec is None or downbeats_sec.size == 0:
        return np.zeros(0, np.intp)
    inside = (downbeats_sec >= beats_sec[0] - _NEAR_SEC) & (downbeats_sec <= beats_sec[-1] + _NEAR_SEC)
    middle_sec = (beats_sec[1:] + beats_sec[:-1]) / 2
    return np.unique(np.searchsorted(middle_sec, downbeats_sec[inside]))


def bar_positions(starts_D: NDArray[np.intp], n_beats: int) -> NDArray[np.int64]:
    """Numbers the beats of every bar.

    Beats are counted from each downbeat to the next. Beats before the first downbeat are numbered as if all earlier
    bars had the length of the first complete bar. With a single downbeat no bar length is known, so the beats before
    it stay `UNKNOWN`.

    Args:
        starts_D: Ascending indices of the beats at which a bar starts; indices from `n_beats` on are ignored.
        n_beats: Number of beats B.

    Returns:
        [B] position of each beat in its bar: 1 for a downbeat, `UNKNOWN` (0) where it cannot be told.
    """
    starts = starts_D[starts_D < n_beats]
    if not starts.size:
        return np.full(n_beats, UNKNOWN, np.int64)
    beat = np.arange(n_beats)
    bar = np.searchsorted(starts, beat, side="right") - 1
    position = beat - starts[bar] + 1
    from_downbeat = beat[: starts[0]] - starts[0]  # negative
    position[: starts[0]] = from_downbeat % (starts[1] - starts[0]) + 1 if starts.size > 1 else UNKNOWN
    return position


def bar_length(starts_D: NDArray[np.intp]) -> int | None:
    """Most frequent number of beats between the starts [D] of bars; None if no complete bar is known."""
    return int(np.bincount(np.diff(starts_D)).argmax()) if starts_D.size > 1 else None


def extend_bars(starts_D: NDArray[np.intp], n_beats: int) -> NDArray[np.intp]:
    """Continues known bars to the end of a longer grid, in the length of the last complete bar.

    Args:
        starts_D: Ascending indices of the beats at which the known bars start.
        n_beats: Number of beats of the longer grid.

    Returns:
        [D'] the known indices and the added ones up to `n_beats`; unchanged if no bar length is known.
    """
    if starts_D.size < 2:
        return starts_D
    length = int(starts_D[-1] - starts_D[-2])
    return np.concatenate([starts_D, np.arange(starts_D[-1] + length, n_beats + 1, length)])


def bar_starts_from_positions(position_B: NDArray[np.int64]) -> NDArray[np.intp]:
    """Inverse of `bar_positions`: [D] indices of the beats whose position is 1."""
    return np.flatnonzero(position_B == 1)
