"""Which windows of tokens a training step or a validation sees: a function of numbers, not of the past.

A window is a run of a piece's tokens that starts at a beat. Its inputs are all its tokens but the last, its
targets all but the first. Windows shorter than the context share a row of a batch. Offsets count tokens of the whole
store. P pieces, W windows, R rows, N beats, T = context, the most inputs a window or row may have.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError

Offsets = NDArray[np.int64]

JITTER = 16
"""Training windows overlap by up to a sixteenth of the context."""


class StepSampler(Sampler[int]):
    """Yields the batch numbers first … stop − 1, but has length `stop`.

    Lightning keeps its batch counter when it resumes and compares it with the length.
    """

    def __init__(self, first: int, stop: int) -> None:
        self.first, self.stop = first, stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.stop))

    def __len__(self) -> int:
        return self.stop


@dataclass(frozen=True, eq=False)
class Windows:
    """W windows.

    Attributes:
        piece: [W] index of the piece in the store.
        start: [W] offset of the first token.
        scored: [W] offset of the first target that counts; those before it belong to another window.
        stop: [W] offset after the last token.
    """

    piece: NDArray[np.int64]
    start: Offsets
    scored: Offsets
    stop: Offsets

    def __len__(self) -> int:
        return self.start.size

    def take(self, index: NDArray[np.int64] | slice) -> Windows:
        """The windows at these positions."""
        return Windows(self.piece[index], self.start[index], self.scored[index], self.stop[index])

    @property
    def inputs(self) -> NDArray[np.int64]:
        """[W] how many inputs each window has."""
        return self.stop - self.start - 1


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows of one or more windows each, which together have at most T inputs.

    Attributes:
        windows: Those of the first row, then those of the second, ….
        first: [R + 1] where the windows of each row begin.
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


def pack(windows: Windows, context: int) -> Rows:
    """Puts windows of at most T inputs into few rows of T: the longest first, each where it leaves least free.

    Rows of one window keep the order that windows have; rows of several come behind them.
    """
    inputs = windows.inputs
    shortest = int(inputs.min(initial=context))
    alone = inputs + shortest > context
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # ascending: inputs still free, and the bin
    loose = np.flatnonzero(~alone)
    for window in loose[np.argsort(-inputs[loose], kind="stable")].tolist():
        size = int(inputs[window])
        at = bisect_left(free, (size, -1))
        left, which = free.pop(at) if at < len(free) else (context, len(bins))
        if which == len(bins):
            bins.append([])
        bins[which].append(window)
        insort(free, (left - size, which))
    order = [*np.flatnonzero(alone).tolist(), *(window for members in bins for window in members)]
    count = [1] * int(alone.sum()) + [len(members) for members in bins]
    return Rows(
        windows.take(np.array(order, np.int64)), np.concatenate([[0], np.cumsum(count, dtype=np.int64)])
    )


class WindowIndex:
    """Cuts pieces into windows.

    Every window has T inputs, but for a piece shorter than that, and for the end of a piece, which may lack
    less than a beat. A beat longer than T is cut: only then a window starts inside a beat.

    Args:
        store: Where the pieces lie.
        pieces: [P] indices of the pieces to cut; those without a target are left out.
        context: T.
        source_weights: How often an epoch goes through the pieces of a source, 1 where nothing is said; of a
            fraction, that share of the pieces is drawn anew for each epoch.

    Raises:
        UserError: A weight is negative, or no piece is of a source that has one.
    """

    def __init__(
        self,
        store: TokenStore,
        pieces: list[int],
        context: int,
        source_weights: Mapping[str, float] | None = None,
    ) -> None:
        assert context >= 1, "a window has an input"
        rows = [store.pieces[index] for index in pieces]
        begin = np.array([row.start for row in rows], np.int64)
        stop = np.array([row.stop for row in rows], np.int64)
        there = stop - begin >= 2
        self.context = context
        self._piece = np.array(pieces, np.int64)[there]
        self._begin = begin[there]
        self._last = stop[there] - 1
        self._beats = store.beat_starts
        self._weight = piece_weights([row.source for row in rows], source_weights or {})[there]

    def __len__(self) -> int:
        """Pieces that have windows."""
        return self._piece.size

    def training(self, seed: int, epoch: int) -> Rows:
        """The rows of one epoch, shuffled: every target of weight 1 at least once, borders elsewhere in every epoch.

        The first window of a piece starts at its beginning, the second at a random beat inside the first.
        Each of the others starts a random bit before the one ahead of it ends: chains that always went on exactly
        there would meet at some beat, whatever their beginning, and share all borders from then on.
        """
        generator = np.random.default_rng([seed, epoch])
        which = np.arange(len(self))
        if (self._weight != 1).any():
            whole = np.floor(self._weight).astype(np.int64)
            which = np.repeat(which, whole + (generator.random(len(self)) < self._weight - whole))
        windows = self._chain(
            which,
            self._begin[which] + generator.integers(1, self.context + 1, which.size),
            lambda n: generator.integers(0, self.context // JITTER + 1, n),
        )
        windows = Windows(windows.piece, windows.start, windows.start + 1, windows.stop)
        rows = pack(windows, self.context)
        return rows.take(generator.permutation(len(rows)))

    def validation(self) -> Rows:
        """Rows in which every target counts exactly once, with as few windows as possible."""
        which = np.arange(len(self))
        windows = self._chain(which, self._begin + self.context, lambda n: np.zeros(n, np.int64))
        return pack(windows.take(np.argsort(windows.start, kind="stable")), self.context)

    def _chain(
        self, which: NDArray[np.int64], second: Offsets, overlap: Callable[[int], NDArray[np.int64]]
    ) -> Windows:
        """Windows from beginning to end of some pieces, each round adding one to all pieces that lack one.

        Args:
            which: [N] the pieces; one may be there several times.
            second: [N] offsets that the second window of each piece starts at, or at the beat before.
            overlap: Gives for n windows how many tokens before their end the next one starts at the latest.
        """
        start, scored = self._begin[which], self._begin[which] + 1
        wanted = second
        rounds = []
        while which.size:
            rounds.append((which, start, scored))
            going_on = start + self.context < self._last[which]
            which, start, wanted = which[going_on], start[going_on], wanted[going_on]
            scored = start + self.context + 1
            start = self._next(which, start, wanted)
            wanted = start + self.context - overlap(start.size)
        piece, start, scored = (np.concatenate(column) for column in zip(*rounds, strict=True))
        stop = np.minimum(start + self.context, self._last[piece]) + 1
        return Windows(self._piece[piece], start, scored, stop)

    def _next(self, which: NDArray[np.int64], start: Offsets, wanted: Offsets) -> Offsets:
        """Where the windows after those at `start` begin: at the beat of `wanted` or, at the end, earlier."""
        following = self._beat_at(wanted)
        following = np.where(following > start, following, self._beat_at(start + self.context))
        following = np.where(following > start, following, start + self.context)
        # The last window reaches back over tokens seen before, so that it is filled too.
        enough = self._last[which] - self.context
        filled = np.minimum(following, self._beat_from(enough, following))
        return np.where(following >= enough, filled, following)

    def _beat_at(self, offset: Offsets) -> Offsets:
        """The last beat that starts at or before each offset."""
        return np.asarray(self._beats[np.searchsorted(self._beats, offset, side="right") - 1])

    def _beat_from(self, offset: Offsets, otherwise: Offsets) -> Offsets:
        """The first beat that starts at or after each offset."""
        at = np.searchsorted(self._beats, offset)
        return np.where(at < self._beats.size, self._beats[np.minimum(at, self._beats.size - 1)], otherwise)


def piece_weights(sources: list[str], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """[P] weight of each piece by its source.

    Raises:
        UserError: A weight is negative, no piece is of a source that has one, or all weights are 0.
    """
    for source, weight in weights.items():
        if source not in sources:
            raise UserError(
                f"trainer.source_weights.{source}: no training piece is of that source; there are "
                f"{', '.join(sorted(set(sources))) or 'none'}"
            )
        if not 0 <= weight < math.inf:
            raise UserError(
                f"trainer.source_weights.{source}={weight} found, expected a number of at least 0"
            )
    found = np.array([float(weights.get(source, 1.0)) for source in sources])
    if sources and not found.any():
        raise UserError("trainer.source_weights: all weights are 0; leave some source to train on")
    return found


class TrainingOrder:
    """The endless sequence of training rows, epoch after epoch, and its global batches.

    Args:
        index: Makes the rows of an epoch.
        seed: Of borders and order.
        rows: R of one global batch.
    """

    def __init__(self, index: WindowIndex, seed: int, rows: int) -> None:
        assert len(index), "there is something to train on"
        self.index, self.seed, self.rows = index, seed, rows
        self._ends: list[int] = []
        self._kept: dict[int, Rows] = {}

    def global_batch(self, k: int) -> Rows:
        """The rows [R] of optimizer step k: a function of (seed, k), whatever was asked before."""
        first, stop = k * self.rows, (k + 1) * self.rows
        while not self._ends or self._ends[-1] < stop:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends))))
        parts = []
        while first < stop:
            epoch = bisect_right(self._ends, first)
            begin = self._ends[epoch - 1] if epoch else 0
            upto = min(stop, self._ends[epoch])
            parts.append(self._epoch(epoch).take(slice(first - begin, upto - begin)))
            first = upto
        return concatenate(parts)

    def _epoch(self, epoch: int) -> Rows:
        if epoch not in self._kept:
            while len(self._kept) > 1:  # a batch reaches over the end of an epoch: two are in use
                del self._kept[min(self._kept)]
            self._kept[epoch] = self.index.training(self.seed, epoch)
        return self._kept[epoch]


def concatenate(parts: list[Rows]) -> Rows:
    """Rows one after the other."""
    columns = [(p.windows.piece, p.windows.start, p.windows.scored, p.windows.stop) for p in parts]
    windows = Windows(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    counts = np.concatenate([np.diff(p.first) for p in parts])
    return Rows(windows, np.concatenate([[0], np.cumsum(counts)]))


def evenly_spaced(rows: Rows, count: int) -> Rows:
    """At most `count` of the rows, at even distances."""
    if len(rows) <= count:
        return rows
    return rows.take(((np.arange(count) + 0.5) * len(rows) / count).astype(np.int64))
