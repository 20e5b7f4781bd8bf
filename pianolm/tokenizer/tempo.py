"""Tempo tokens: beat lengths to bins and back.

With `log50_tuned` a piece states a tuning, by which the scale of bins is shifted. Of a constant tempo between two bins
of the unshifted scale, carried errors make a sequence that goes to and fro between the two; on a scale that has a bin
within a thirty-second of a step of the tempo, they repeat one bin.

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
from pianolm.tokenizer.vocabulary import TUNINGS

LOWEST_BPM, RANGE_BPM = 15.0, 32.0
"""Lowest tempo of a beat grid, and the ratio of the highest (480 BPM) to it."""
BIN_BPM = 10.0
"""Width of a bin of `published`."""
_ROUNDING = 1e-6
"""In bins: beat times are sums of rounded numbers, and an exact 200 BPM must not fall into the bin below it."""


def _log_bpm(bins: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Bin k is 15 · 32^((k + shift) / (bins − 1)) BPM: unshifted, 15 to 480 in equal ratios."""
    steps = max(bins - 1, 1)
    return np.array([LOWEST_BPM * RANGE_BPM ** ((k + shift) / steps) for k in range(bins)], np.float64)


def _published_bpm(bins: int) -> NDArray[np.float64]:
    """Bin k covers [10 k, 10 k + 10) BPM and decodes as its middle."""
    return np.array([BIN_BPM * k + BIN_BPM / 2 for k in range(bins)], np.float64)


_BPM_OF_SCHEME = {"log50": _log_bpm, "log50_tuned": _log_bpm, "published": _published_bpm}
SCHEMES = tuple(_BPM_OF_SCHEME)
"""Values of `tokenizer.tempo`."""


@dataclass(frozen=True)
class TempoBins:
    """Bins of beat tempo.

    Attributes:
        scheme: `log50`: equal ratios from 15 to 480 BPM, and each bin makes up for the rounding errors of the beats
            before it. `log50_tuned`: the same, on a scale that a tuning of 0 to 15 sixteenths of a step raises.
            `published`: 10 BPM a bin, each beat rounded on its own.
        bins: Number of bins K.
    """

    scheme: str = "log50"
    bins: int = 50

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UserError(f"tokenizer.tempo={self.scheme!r} found, expected one of {', '.join(SCHEMES)}")

    @property
    def tuned(self) -> bool:
        """Whether a sequence states a tuning."""
        return self.scheme == "log50_tuned"

    @cached_property
    def bpm(self) -> NDArray[np.float64]:
        """[K] decoded tempo of every bin, ascending; of the unshifted scale."""
        return _BPM_OF_SCHEME[self.scheme](self.bins)

    @cached_property
    def bpm_of_tuning(self) -> NDArray[np.float64]:
        """[tunings, K] decoded tempo of every bin; one row where there are no tunings."""
        if not self.tuned:
            return self.bpm[None]
        return np.stack([_log_bpm(self.bins, tuning / TUNINGS) for tuning in range(TUNINGS)])

    @property
    def in_grid(self) -> NDArray[np.bool_]:
        """[K] whether a beat grid allows the decoded tempo of a bin, with every tuning: 15 to 480 BPM."""
        allowed = (self.bpm_of_tuning >= LOWEST_BPM) & (self.bpm_of_tuning <= LOWEST_BPM * RANGE_BPM)
        return np.asarray(allowed.all(axis=0))

    @property
    def fingerprint(self) -> str:
        """Hash of the decoded tempi, and of the number of tunings where there are some."""
        tunings = str(TUNINGS).encode() if self.tuned else b""
        return hashlib.sha256(np.ascontiguousarray(self.bpm).tobytes() + tunings).hexdigest()[:16]

    def best_tuning(self, beats_sec: ArrayLike) -> int:
        """The tuning with which the bins of beat times [B + 1] change least often; 0 where there are no tunings.

        Of several, it is the one whose decoded beat times have the least mean error. The tuned scale must reach down to
        the slowest beat, so that no error arises from clipping; the unshifted one always does.
        """
        times = np.asarray(beats_sec, np.float64)
        if not self.tuned or times.size < 2:
            return 0
        lowest = max(60.0 / float(np.diff(times).max()), LOWEST_BPM) * (1 + _ROUNDING)
        possible = [number for number, row in enumerate(self.bpm_of_tuning) if row[0] <= lowest]
        least, best = times.size, list[tuple[float, int]]()
        for tuning in possible:
            bins, changes = self._carried(times, tuning, least)
            if changes < least:
                least, best = changes, []
            if changes == least:
                error_sec = np.abs(self.decode(bins, times[0], tuning) - times).mean()
                best.append((float(error_sec), tuning))
        return min(best)[1]

    def encode(self, beats_sec: ArrayLike, tuning: int = 0) -> NDArray[np.int64]:
        """Beat times [B + 1] to bins [B] of a tuning."""
        times = np.asarray(beats_sec, np.float64)
        if self.scheme == "published":
            return self._each_alone(times)
        return np.array(self._carried(times, tuning, times.size)[0], np.int64)

    @cached_property
    def _ascending_sec(self) -> list[tuple[list[float], list[float]]]:
        """For each tuning the beat lengths of its bins, ascending, and the borders half-way between them."""
        lengths = 60.0 / self.bpm_of_tuning[:, ::-1]
        return [(row.tolist(), ((row[1:] + row[:-1]) / 2).tolist()) for row in lengths]

    def _carried(self, times: NDArray[np.float64], tuning: int, most_changes: int) -> tuple[list[int], int]:
        """Bins [B] whose decoded beat ends lie closest to the true ones, and how often the bin changes.

        The error of one beat is made up for by the next, so that decoded beat times never drift further than about
        half a step of the scale. The search ends where the bin has changed more often than `most_changes`.
        """
        ascending, borders = self._ascending_sec[tuning]
        last = len(ascending) - 1
        bins: list[int] = []
        now, before, changes = 0.0, -1, -1
        for end in (times[1:] - times[0]).tolist():
            nearest = bisect_left(borders, end - now)
            now += ascending[nearest]
            bins.append(last - nearest)
            if nearest != before:
                before, changes = nearest, changes + 1
                if changes > most_changes:
                    break
        return bins, changes

    def _each_alone(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bins [B] that hold the tempo of each beat; errors of beat times add up."""
        bpm = 60.0 / np.diff(times)
        return np.clip(np.floor(bpm / BIN_BPM + _ROUNDING), 0, self.bins - 1).astype(np.int64)

    def decode(self, bins: ArrayLike, start_sec: float = 0.0, tuning: int = 0) -> NDArray[np.float64]:
        """Bins [B] of a tuning to beat times [B + 1], the first at `start_sec`."""
        lengths = 60.0 / self.bpm_of_tuning[tuning][np.asarray(bins, np.int64)]
        return start_sec + np.concatenate([[0.0], np.cumsum(lengths)])
