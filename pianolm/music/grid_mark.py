"""A marker in MIDI files that pianolm writes, for grids that tempo map and time signatures do not describe exactly.

Tempo events and time signatures tell a reader neither where a grid ends nor between which beats its bars are known.
Where that matters, `write_midi` adds a marker such as `pianolm grid: 32 beats, bars 1-29 without 13`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import MAX_BEATS

_PATTERN = re.compile(r"pianolm grid: (\d{1,6}) beats(?:, bars (\d{1,6})-(\d{1,6})(?: without ([\d ]+))?)?")


@dataclass(frozen=True)
class GridMark:
    """What a marker says about the grid of a file, in which every quarter note is a beat.

    Attributes:
        beats: Number of beats.
        first_bar: Index of the first beat at which a bar starts; None if no bars are known.
        last_bar: Index of the last beat at which a bar starts.
        without: Beats between them at which a time signature implies a bar, but none starts.
    """

    beats: int
    first_bar: int | None = None
    last_bar: int | None = None
    without: tuple[int, ...] = ()

    @classmethod
    def of_bars(cls, beats: int, starts_D: NDArray[np.intp], implied: NDArray[np.intp]) -> GridMark:
        """The mark of a grid with bars at `starts_D`, whose time signatures imply bars at the beats `implied`."""
        if not starts_D.size:
            return cls(beats)
        first, last = int(starts_D[0]), int(starts_D[-1])
        extra = np.setdiff1d(implied[(implied >= first) & (implied <= last)], starts_D)
        return cls(beats, first, last, tuple(extra.tolist()))

    @classmethod
    def find(cls, texts: Iterable[str]) -> GridMark | None:
        """The mark among the marker texts of a file; None if there is none."""
        for text in texts:
            match = _PATTERN.fullmatch(text)
            if match is not None and 1 <= int(match[1]) <= MAX_BEATS:
                first, last = (None if match[group] is None else int(match[group]) for group in (2, 3))
                return cls(int(match[1]), first, last, tuple(map(int, (match[4] or "").split())))
        return None

    def __str__(self) -> str:
        text = f"pianolm grid: {self.beats} beats"
        if self.first_bar is not None:
            text += f", bars {self.first_bar}-{self.last_bar}"
        if self.without:
            text += f" without {' '.join(map(str, self.without))}"
        return text

    def bar_starts(self, implied: NDArray[np.intp]) -> NDArray[np.intp]:
        """[D] beats at which bars start, from those that the time signatures imply."""
        if self.first_bar is None or self.last_bar is None:
            return np.zeros(0, np.intp)
        inside = implied[(implied > self.first_bar) & (implied < self.last_bar)]
        starts = np.unique(np.concatenate([[self.first_bar], inside, [self.last_bar]])).astype(np.intp)
        return np.setdiff1d(starts[starts <= self.beats], np.array(self.without, np.intp))
