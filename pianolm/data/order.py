"""Which windows of tokens a training step or a validation sees: a function of numbers, not of the past.

A window is a run of a piece's tokens that starts at a beat. Its inputs are all its tokens but the last, its
targets all but the first. Offsets count tokens of the whole store. P pieces, W windows, N beats, T = context,
the most inputs a window may have.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pianolm.data.token_store import TokenStore

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


class WindowIndex:
    """Cuts pieces into windows.

    Every window has T inputs, but for a piece shorter than that, and for the end of a piece, which may lack
    less than a beat. A beat longer than T is cut: only then a window starts inside a beat.

    Args:
        store: Where the pieces lie.
        pieces: [P] indices of the pieces to cut; those without a target are left out.
        context: T.
    """

    def __init__(self, store: TokenStore, pieces: list[int], context: int) -> None:
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

    def __len__(self) -> int:
        """Pieces that have windows."""
        return self._piece.size

    def training(self, seed: int, epoch: int) -> Windows:
        """The windows of one epoch, shuffled: every target at least once, borders elsewhere in every epoch.

        The first window of a piece starts at its beginning, the second at a random beat inside the first.
        Each of the others starts a random bit before the one ahead of it ends: chains that always went on exactly
        there would meet at some beat, whatever their beginning, and share all borders from then on.
        """
        generator = np.random.default_rng([seed, epoch])
        windows = self._chain(
            self._begin + generator.integers(1, self.context + 1, len(self)),
            lambda n: generator.integers(0, self.context // JITTER + 1, n),
        )
        shuffled = windows.take(generator.permutation(len(windows)))
        return Windows(shuffled.piece, shuffled.start, shuffled.start + 1, shuffled.stop)

    def validation(self) -> Windows:
        """Windows in which every target counts exactly once, with as few of them as possible."""
        windows = self._chain(self._begin + self.context, lambda n: np.zeros(n, np.int64))
        return windows.take(np.argsort(windows.start, kind="stable"))

    def _chain(self, second: Offsets, overlap: Callable[[int], NDArray[np.int64]]) -> Windows:
        """Windows from beginning to end of every piece, each round adding one to all pieces that lack one.

        Args:
            second: [P] offsets that the second window of each piece starts at, or at the beat before.
            overlap: Gives for n windows how many tokens before their end the next one starts at the latest.
        """
        which, start, scored = np.arange(len(self)), self._begin, self._begin + 1
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


class TrainingOrder:
    """The endless sequence of training windows, epoch after epoch, and its global batches.

    Args:
        index: Makes the windows of an epoch.
        seed: Of borders and order.
        windows: W of one global batch.
    """

    def __init__(self, index: WindowIndex, seed: int, windows: int) -> None:
        assert len(index), "there is something to train on"
        self.index, self.seed, self.windows = index, seed, windows
        self._ends: list[int] = []
        self._kept: dict[int, Windows] = {}

    def global_batch(self, k: int) -> Windows:
        """The windows [W] of optimizer step k: a function of (seed, k), whatever was asked before."""
        first, stop = k * self.windows, (k + 1) * self.windows
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

    def _epoch(self, epoch: int) -> Windows:
        if epoch not in self._kept:
            while len(self._kept) > 1:  # a batch reaches over the end of an epoch: two are in use
                del self._kept[min(self._kept)]
            self._kept[epoch] = self.index.training(self.seed, epoch)
        return self._kept[epoch]


def concatenate(parts: list[Windows]) -> Windows:
    """Windows one after the other."""
    columns = [(p.piece, p.start, p.scored, p.stop) for p in parts]
    return Windows(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def evenly_spaced(windows: Windows, count: int) -> Windows:
    """At most `count` of the windows, at even distances."""
    if len(windows) <= count:
        return windows
    return windows.take(((np.arange(count) + 0.5) * len(windows) / count).astype(np.int64))
