"""Bars: which beats of a grid begin one, and where in its bar every beat stands, there and back.

Shapes: B beats of a grid (it has B + 1 beat times), D bars.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0
"""Position of a beat of which no one says where in a bar it stands."""
_NEAR_SEC = 1e-6


def bar_starts(beats_sec: NDArray[np.float64], downbeats_sec: NDArray[np.float64] | None) -> NDArray[np.intp]:
    """[D'] the beats, counted from 0, at which a bar begins: those nearest to the downbeats within the grid.

    Args:
        beats_sec: [B + 1] beat times. The last one may begin a bar, too: it ends the bar before.
        downbeats_sec: [D] seconds of the bars' first beats, None where unknown, and then no beat begins a bar.
    """
    if downbeats_sec is None or downbeats_sec.size == 0:
        return np.zeros(0, np.intp)
    inside = (downbeats_sec >= beats_sec[0] - _NEAR_SEC) & (downbeats_sec <= beats_sec[-1] + _NEAR_SEC)
    middle_sec = (beats_sec[1:] + beats_sec[:-1]) / 2
    return np.unique(np.searchsorted(middle_sec, downbeats_sec[inside]))


def bar_positions(starts_D: NDArray[np.intp], n_beats: int) -> NDArray[np.int64]:
    """[B] position of every beat in its bar: 1 for the first, `UNKNOWN` where no one knows.

    From a bar's first beat on, beats are counted until the next bar. What comes before the first bar is the end of a
    bar as long as the first whole one, and whole ones before that. Where only one beat begins a bar, no bar's length is
    known, and the beats before it have no position.

    Args:
        starts_D: Ascending beats at which a bar begins; those that are no beats of the grid do not count.
        n_beats: B.
    """
    starts = starts_D[starts_D < n_beats]
    if not starts.size:
        return np.full(n_beats, UNKNOWN, np.int64)
    beat = np.arange(n_beats)
    bar = np.searchsorted(starts, beat, side="right") - 1
    position = beat - starts[bar] + 1
    ahead = beat[: starts[0]] - starts[0]
    position[: starts[0]] = ahead % (starts[1] - starts[0]) + 1 if starts.size > 1 else UNKNOWN
    return position


def bars_onward(starts_D: NDArray[np.intp], n_beats: int) -> NDArray[np.intp]:
    """[D'] the bars of so many beats of which the first ones are known: they go on in the length of the last one."""
    if starts_D.size < 2:
        return starts_D
    length = int(starts_D[-1] - starts_D[-2])
    return np.concatenate([starts_D, np.arange(starts_D[-1] + length, n_beats + 1, length)])


def starts_of_positions(position_B: NDArray[np.int64]) -> NDArray[np.intp]:
    """[D] the beats at which a bar begins, by the position of every beat."""
    return np.flatnonzero(position_B == 1)
