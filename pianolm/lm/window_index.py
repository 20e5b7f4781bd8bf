"""Cuts the pieces of a token store into windows.

Shapes: P pieces, N pieces that are cut, T inputs of a row (the context).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources import SOURCES
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.lm.windows import Offsets, Rows, Windows, pack

OVERLAP = 16
"""Consecutive training windows overlap by a random number of tokens, up to the context divided by this."""


class WindowIndex:
    """Cuts pieces into windows.

    A window has T inputs. Exceptions: a piece shorter than that is one window, and the last window of a piece may be
    up to one beat shorter. Only in a beat longer than a window does one start inside a beat.

    Args:
        store: Token store with the pieces.
        pieces: [P] indices of the pieces to cut; pieces without a target are left out.
        context: T.
        source_weights: Passes over the pieces of a data source in an epoch, 1 where none is given. Of a fraction,
            that share of the pieces is drawn for each epoch.

    Raises:
        UserError: A weight is negative, or no piece is from a source with a positive weight.
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
        has_target = stop - begin >= 2
        self.context = context
        self._piece = np.array(pieces, np.int64)[has_target]
        self._begin = begin[has_target]
        self._last = stop[has_target] - 1
        self._beats = store.beat_starts
        self._tuning = store.tunings[self._piece]
        self._weight = piece_weights([row.source for row in rows], source_weights or {})[has_target]

    def __len__(self) -> int:
        """Number of pieces that have windows."""
        return self._piece.size

    def training(self, seed: int, epoch: int) -> Rows:
        """The rows of one epoch in random order. Every target of weight 1 is in one of them.

        Window borders differ between epochs. The first window of a piece starts at its beginning, the second at a
        random beat inside the first. Each later window starts a random number of tokens before the end of the one
        before: without that, two chains of windows that meet at some beat would have equal borders from there on.
        """
        generator = np.random.default_rng([seed, epoch])
        drawn = np.arange(len(self))
        if (self._weight != 1).any():
            whole = np.floor(self._weight).astype(np.int64)
            drawn = np.repeat(drawn, whole + (generator.random(len(self)) < self._weight - whole))
        windows = self._chain(
            drawn,
            self._begin[drawn] + generator.integers(1, self.context + 1, drawn.size),
            lambda n: generator.integers(0, self.context // OVERLAP + 1, n),
        )
        windows = replace(windows, scored=windows.start + 1)
        rows = pack(windows, self.context)
        return rows.take(generator.permutation(len(rows)))

    def validation(self) -> Rows:
        """Rows in which every target counts exactly once, with as few windows as possible."""
        pieces = np.arange(len(self))
        windows = self._chain(pieces, self._begin + self.context, lambda n: np.zeros(n, np.int64))
        return pack(windows.take(np.argsort(windows.start, kind="stable")), self.context)

    def _chain(
        self, pieces: NDArray[np.int64], second: Offsets, overlap: Callable[[int], NDArray[np.int64]]
    ) -> Windows:
        """Windows from beginning to end of pieces. Each round adds one window to every piece not yet covered.

        Args:
            pieces: [N] pieces, as positions in this index; a piece may occur several times.
            second: [N] offset in each piece; its second window starts at the last beat up to there.
            overlap: Gives for n windows the tokens before the end of each that the next one may repeat.
        """
        start, scored = self._begin[pieces], self._begin[pieces] + 1
        target, end = second, start + self.context
        rounds = []
        while pieces.size:
            rounds.append((pieces, start, scored, np.minimum(end, self._last[pieces]) + 1))
            continues = end < self._last[pieces]
            pieces, start, target, end = (each[continues] for each in (pieces, start, target, end))
            scored = end + 1
            start = self._next(pieces, start, target, end)
            end = start + self._later_inputs(pieces)
            target = end - overlap(start.size)
        piece, start, scored, stop = (np.concatenate(column) for column in zip(*rounds, strict=True))
        tuning = np.where(start > self._begin[piece], self._tuning[piece], -1)
        return Windows(self._piece[piece], start, scored, stop, tuning)

    def _later_inputs(self, pieces: NDArray[np.int64]) -> NDArray[np.int64]:
        """[N] tokens of a piece that a full window holds as inputs if it starts later than the piece."""
        return self.context - (self._tuning[pieces] >= 0)

    def _next(self, pieces: NDArray[np.int64], start: Offsets, target: Offsets, end: Offsets) -> Offsets:
        """Start of the windows after those from `start` to `end`.

        It is the beat at `target`, or an earlier one at the piece's end.
        """
        following = self._beat_at(target)
        following = np.where(following > start, following, self._beat_at(end))
        following = np.where(following > start, following, end)
        # The last window starts early enough to be full, over tokens of the window before.
        latest = self._last[pieces] - self._later_inputs(pieces)
        filled = np.minimum(following, self._beat_from(latest, following))
        return np.where(following >= latest, filled, following)

    def _beat_at(self, offset: Offsets) -> Offsets:
        """The last beat that starts at or before each offset."""
        return np.asarray(self._beats[np.searchsorted(self._beats, offset, side="right") - 1])

    def _beat_from(self, offset: Offsets, default: Offsets) -> Offsets:
        """The first beat that starts at or after each offset, `default` where there is none."""
        at = np.searchsorted(self._beats, offset)
        return np.where(at < self._beats.size, self._beats[np.minimum(at, self._beats.size - 1)], default)


def piece_weights(sources: list[str], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """[P] weight of each piece, given its data source.

    Raises:
        UserError: A weight is negative, no piece is from a source with a positive weight, or all weights are 0.
    """
    for source, weight in weights.items():
        if source not in sources and not (weight == 0 and source in SOURCES):
            raise UserError(
                f"loader.source_weights.{source}: no training piece is from this source; expected one of "
                f"{', '.join(sorted(set(sources))) or 'none'}"
            )
        if not 0 <= weight < math.inf:
            raise UserError(f"loader.source_weights.{source}={weight} found, expected a number of at least 0")
    weight_P = np.array([float(weights.get(source, 1.0)) for source in sources])
    if sources and not weight_P.any():
        raise UserError("loader.source_weights: all weights are 0; give one source a positive weight")
    return weight_P
