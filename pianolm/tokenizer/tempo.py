"""Tempo tokens: beat lengths to bins and back, with the rounding error carried so that it does not add up."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError

LOWEST_BPM, RANGE_BPM = 15.0, 32.0


def _log_bpm(bins: int) -> NDArray[np.float64]:
    """Bin k is 15 · 32^(k / (bins − 1)) BPM: 15 to 480 in equal ratios."""
    return np.array([LOWEST_BPM * RANGE_BPM ** (k / max(bins - 1, 1)) for k in range(bins)], np.float64)


def _linear_bpm(bins: int) -> NDArray[np.float64]:
    """Bin k covers [10 k, 10 k + 10) BPM and decodes as its middle."""
    return np.array([10.0 * k + 5.0 for k in range(bins)], np.float64)


SCHEMES = {"log50": _log_bpm, "linear10": _linear_bpm}


@dataclass(frozen=True)
class TempoBins:
    """Bins of beat tempo.

    Attributes:
        scheme: `log50` (equal ratios) or `linear10` (10 BPM wide).
        bins: How many there are.
    """

    scheme: str = "log50"
    bins: int = 50

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UserError(f"tokenizer.tempo={self.scheme!r} found, expected one of {', '.join(SCHEMES)}")

    @cached_property
    def bpm(self) -> NDArray[np.float64]:
        """[K] decoded tempo of every bin, ascending."""
        return SCHEMES[self.scheme](self.bins)

    @cached_property
    def beat_sec(self) -> NDArray[np.float64]:
        """[K] decoded beat length of every bin in seconds, descending."""
        return 60.0 / self.bpm

    @property
    def fingerprint(self) -> str:
        """Hash of the decoded tempi."""
        return hashlib.sha256(np.ascontiguousarray(self.bpm).tobytes()).hexdigest()[:16]

    def encode(self, beats_sec: ArrayLike) -> NDArray[np.int64]:
        """Beat times [B + 1] to bins [B].

        Each bin is the one whose decoded beat end lies closest to the true one, so the error of one beat is made
        good by the next and beat times never drift further than about half a step of the scale.
        """
        times = np.asarray(beats_sec, np.float64)
        ends = (times[1:] - times[0]).tolist()
        ascending = self.beat_sec[::-1].tolist()
        borders = ((self.beat_sec[::-1][1:] + self.beat_sec[::-1][:-1]) / 2).tolist()
        last = len(ascending) - 1
        bins, now = [], 0.0
        for end in ends:
            slot = bisect_left(borders, end - now)
            now += ascending[slot]
            bins.append(last - slot)
        return np.array(bins, np.int64)

    def decode(self, bins: ArrayLike, start_sec: float = 0.0) -> NDArray[np.float64]:
        """Bins [B] to beat times [B + 1], the first at `start_sec`."""
        lengths = self.beat_sec[np.asarray(bins, np.int64)]
        return start_sec + np.concatenate([[0.0], np.cumsum(lengths)])
