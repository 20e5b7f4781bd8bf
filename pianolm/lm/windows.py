"""Windows of a token store, and the rows of a batch that they are packed into.

A window is a run of one piece's tokens that starts at a beat. Its inputs are all its tokens but the last, its
targets all but the first. Where pieces state a tuning of their tempo scale, a window that starts later in the piece
begins with the id of that tuning, so that tempo bins mean the same in it. Windows shorter than the context share a row.
Offsets count tokens of the whole store.

Shapes: P pieces, W windows, R rows, B rows of a micro-batch, T inputs of a row (the context), V ids.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """W windows.

    Attributes:
        piece: [W] index of the piece in the store.
        start: [W] offset of the first token.
        scored: [W] offset of the first target that counts; earlier targets count in another window.
        stop: [W] offset after the last token.
        tuning: [W] id that stands before the first token, −1 for none.
    """

    piece: NDArray[np.int64]
    start: Offsets
    scored: Offsets
    stop: Offsets
    tuning: NDArray[np.int64]

    def __len__(self) -> int:
        return self.start.size

    def take(self, index: NDArray[np.int64] | slice) -> Windows:
        """The windows at these positions."""
        return Windows(*(column[index] for column in self.columns))

    @property
    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """All arrays, in the order of the attributes."""
        return self.piece, self.start, self.scored, self.stop, self.tuning

    @property
    def inputs(self) -> NDArray[np.int64]:
        """[W] number of inputs of each window."""
        return self.stop - self.start - 1 + (self.tuning >= 0)


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows. Each holds one or more windows with at most T inputs in all.

    Attributes:
        windows: The windows of the first row, then those of the second, ….
        first: [R + 1] position of the first window of each row; the last entry is W.
    """

    windows: Windows
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return self.first.size - 1

    @property
    def row(self) -> NDArray[np.int64]:
        """[W] the row of each window."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    def take(self, index: NDArray[np.int64] | slice) -> Rows:
        """The rows at these positions."""
        chosen = np.arange(len(self))[index]
        count = np.diff(self.first)[chosen]
        first = np.concatenate([[0], np.cumsum(count)])
        within = np.arange(first[-1]) - np.repeat(first[:-1], count)
        return Rows(self.windows.take(np.repeat(self.first[chosen], count) + within), first)

    def evenly_spaced(self, count: int) -> Rows:
        """At most `count` of the rows, at even distances."""
        if len(self) <= count:
            return self
        return self.take(((np.arange(count) + 0.5) * len(self) / count).astype(np.int64))

    @staticmethod
    def concatenate(parts: list[Rows]) -> Rows:
        """Rows one after the other."""
        columns = zip(*(part.windows.columns for part in parts), strict=True)
        windows = Windows(*(np.concatenate(column) for column in columns))
        counts = np.concatenate([np.diff(p.first) for p in parts])
        return Rows(windows, np.concatenate([[0], np.cumsum(counts)]))


def pack(windows: Windows, context: int) -> Rows:
    """Packs windows of at most T inputs into few rows of T, best fit by decreasing length.

    Windows that share no row keep their order; rows of several windows follow them.
    """
    inputs = windows.inputs
    shortest = int(inputs.min(initial=context))
    fills_row = inputs + shortest > context
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # ascending: free inputs and index of the bin
    short = np.flatnonzero(~fills_row)
    for window in short[np.argsort(-inputs[short], kind="stable")].tolist():
        size = int(inputs[window])
        at = bisect_left(free, (size, -1))
        space, bin_index = free.pop(at) if at < len(free) else (context, len(bins))
        if bin_index == len(bins):
            bins.append([])
        bins[bin_index].append(window)
        insort(free, (space - size, bin_index))
    order = [*np.flatnonzero(fills_row).tolist(), *(window for members in bins for window in members)]
    count = [1] * int(fills_row.sum()) + [len(members) for members in bins]
    return Rows(
        windows.take(np.array(order, np.int64)), np.concatenate([[0], np.cumsum(count, dtype=np.int64)])
    )
