"""Tempo tokens: beat lengths to bins and back.

Shapes: B beats, K bins.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError

LOWEST_BPM, RANGE_BPM = 15.0, 32.0
"""Lowest tempo of a beat grid, and the ratio of the highest (480 BPM) to it."""
BIN_BPM = 10.0
"""Width of a bin of `published`."""
_ROUNDING = 1e-6
"""In bins: beat times are sums of rounded numbers, and an exact 200 BPM must not fall into the bin below it."""


def _log_bpm(bins: int) -> NDArray[np.float64]:
    """Bin k is 15 · 32^(k / (bins − 1)) BPM: 15 to 480 in equal ratios."""
    return np.array([LOWEST_BPM * RANGE_BPM ** (k / max(bins - 1, 1)) for k in range(bins)], np.float64)


def _published_bpm(bins: int) -> NDArray[np.float64]:
    """Bin k covers [10 k, 10 k + 10) BPM and decodes as its middle."""
    return np.array([BIN_BPM * k + BIN_BPM / 2 for k in range(bins)], np.float64)


_BPM_OF_SCHEME = {"log50": _log_bpm, "published": _published_bpm}
SCHEMES = tuple(_BPM_OF_SCHEME)
"""Values of `tokenizer.tempo`."""


@dataclass(frozen=True)
class TempoBins:
    """Bins of beat tempo.

    Attributes:
        scheme: `log50`: equal ratios from 15 to 480 BPM, and each bin makes up for the rounding errors of the beats
            before it. `published`: 10 BPM a bin, each beat rounded on its own.
        bins: Number of bins K.
    """

    scheme: str = "log50"
    bins: int = 50

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UserError(f"tokenizer.tempo={self.scheme!r} found, expected one of {', '.join(SCHEMES)}")

    @cached_property
    def bpm(self) -> NDArray[np.float64]:
        """[K] decoded tempo of every bin, ascending."""
        return _BPM_OF_SCHEME[self.scheme](self.bins)

    @cached_property
    def beat_sec(self) -> NDArray[np.float64]:
        """[K] decoded beat length of every bin in seconds, descending."""
        return 60.0 / self.bpm

    @property
    def fingerprint(self) -> str:
        """Hash of the decoded tempi."""
        return hashlib.sha256(np.ascontiguousarray(self.bpm).tobytes()).hexdigest()[:16]

    def encode(self, beats_sec: ArrayLike) -> NDArray[np.int64]:
        """Beat times [B + 1] to bins [B]."""
        times = np.asarray(beats_sec, np.float64)
        return self._carried(times) if self.scheme == "log50" else self._each_alone(times)

    def _carried(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bins [B] whose decoded beat ends lie closest to the true ones.

        The error of one beat is made up for by the next, so that decoded beat times never drift further than about
        half a step of the scale.
        """
        ends = (times[1:] - times[0]).tolist()
        ascending = self.beat_sec[::-1].tolist()
        borders = ((self.beat_sec[::-1][1:] + self.beat_sec[::-1][:-1]) / 2).tolist()
        last = len(ascending) - 1
        bins, now = [], 0.0
        for end in ends:
            nearest = bisect_left(borders, end - now)
            now += ascending[nearest]
            bins.append(last - nearest)
        return np.array(bins, np.int64)

    def _each_alone(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bins [B] that hold the tempo of each beat; errors of beat times add up."""
        bpm = 60.0 / np.diff(times)
        return np.clip(np.floor(bpm / BIN_BPM + _ROUNDING), 0, self.bins - 1).astype(np.int64)

    def decode(self, bins: ArrayLike, start_sec: float = 0.0) -> NDArray[np.float64]:
        """Bins [B] to beat times [B + 1], the first at `start_sec`."""
        lengths = self.beat_sec[np.asarray(bins, np.int64)]
        return start_sec + np.concatenate([[0.0], np.cumsum(lengths)])
