"""Windows of a token store, and the rows of a batch that they are packed into.

A window is a run of one piece's tokens that starts at a beat. Its inputs are all its tokens but the last, its
targets all but the first. Where pieces state a tuning of their tempo scale, a window that starts later in the piece
begins with the id of that tuning, so that tempo bins mean the same in it. Windows shorter than the context share a row.
Offsets count tokens of the whole store.

Shapes: P pieces, W windows, R rows, B rows of a micro-batch, T inputs of a row (the context), V ids.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pianolm.data.sources import SOURCES
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.lm.loss import IGNORE
from pianolm.lm.window_rewriter import Rewriter
from pianolm.tokenizer.vocabulary import Kind

Offsets = NDArray[np.int64]
Batch = dict[str, Any]

KEYBOARD = 21, 108
"""Lowest and highest pitch of a piano."""
OVERLAP = 16
"""Consecutive training windows overlap by a random number of tokens, up to the context divided by this."""


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


class WindowReader:
    """Reads rows of windows as the tensors of a batch (see `pianolm.lm.datamodule`).

    Args:
        store: The tokens.
        context: T.
        rewriter: Rewrites some of the training windows; None for none.
    """

    def __init__(self, store: TokenStore, context: int, rewriter: Rewriter | None = None) -> None:
        self.store, self.context, self.rewriter = store, context, rewriter
        self._flat = np.array([row.flat for row in store.pieces], bool)
        self._performance = np.array([row.kind == "performance" for row in store.pieces], bool)
        if store.mode == "velocity":
            self._performance &= ~self._flat  # no loss on velocities of flat pieces: bits would be missing
        self._is_velocity = store.vocabulary.kind_of == Kind.VELOCITY
        self._is_pitch = store.vocabulary.kind_of == Kind.PITCH

    def tokens(self, windows: Windows, at: int) -> NDArray[np.int64]:
        """All tokens of one window."""
        tokens = self.store.tokens[windows.start[at] : windows.stop[at]].astype(np.int64)
        return tokens if windows.tuning[at] < 0 else np.insert(tokens, 0, windows.tuning[at])

    def labels(self, windows: Windows, at: int, tokens: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The targets of one window, −100 where none counts."""
        labels = (self.tokens(windows, at) if tokens is None else tokens)[1:].copy()
        if self._flat[windows.piece[at]]:
            labels[self._is_velocity[labels]] = IGNORE
        labels[: labels.size - (windows.stop[at] - windows.scored[at])] = IGNORE
        return labels

    def rewritten(
        self, windows: Windows, at: int, tokens: NDArray[np.int64], drawn: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Inputs and targets of a rewritten window, −100 where none counts; None where it stays as it is.

        Args:
            windows: Of training, whose targets all count.
            at: The window.
            tokens: Its tokens.
            drawn: Random numbers of the window; see `RewriterMix.sequence`.
        """
        flat = bool(self._flat[windows.piece[at]])
        sequence = None if self.rewriter is None else self.rewriter.sequence(tokens, drawn, flat)
        if sequence is None:
            return None
        labels = np.where(sequence.scored, sequence.ids, IGNORE)[1:]
        if flat:
            labels[self._is_velocity[labels] & (labels != IGNORE)] = IGNORE
        return sequence.ids[:-1], labels

    def batch(
        self,
        rows: Rows,
        n_rows: int,
        transpose: int = 0,
        drawn_R: NDArray[np.float64] | None = None,
        drawn_WD: NDArray[np.float64] | None = None,
    ) -> Batch:
        """Rows as tensors of `n_rows` rows; rows beyond those given hold PAD.

        Args:
            rows: At most `n_rows` rows.
            n_rows: B.
            transpose: Largest transposition of a window in semitones, up or down.
            drawn_R: A number in [0, 1) per row that selects one of the transpositions within the keyboard.
            drawn_WD: Numbers in [0, 1) per window for `RewriterMix.sequence`; None rewrites no windows.
        """
        shape = (n_rows, self.context)
        input_ids = np.full(shape, self.store.vocabulary.pad, np.int64)
        labels = np.full(shape, IGNORE, np.int64)
        performance = np.zeros(shape, bool)
        position_ids = np.tile(np.arange(self.context), (n_rows, 1))
        windows, inputs, row = rows.windows, rows.windows.inputs, rows.row
        column = np.cumsum(inputs) - inputs
        column -= column[rows.first[row]] if len(windows) else 0
        for at in range(len(windows)):
            tokens = self.tokens(windows, at)
            if transpose and drawn_R is not None:
                self._transpose(tokens, transpose, drawn_R[row[at]])
            of_window = None if drawn_WD is None else self.rewritten(windows, at, tokens, drawn_WD[at])
            ids, targets = of_window or (tokens[:-1], self.labels(windows, at, tokens))
            place = row[at], slice(column[at], column[at] + ids.size)
            input_ids[place], labels[place] = ids, targets
            place = row[at], slice(column[at], column[at] + inputs[at])
            performance[place] = self._performance[windows.piece[at]]
            position_ids[place] = np.arange(inputs[at])
        arrays = {"input_ids": input_ids, "labels": labels, "performance": performance}
        if len(windows) > len(rows):
            arrays["position_ids"] = position_ids
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _transpose(self, tokens: NDArray[np.int64], largest: int, drawn: float) -> None:
        """Transposes a window in place by one of −largest, …, largest semitones that keeps it on the keyboard."""
        at = np.flatnonzero(self._is_pitch[tokens])
        if not at.size:
            return
        pitch = tokens[at] - self.store.vocabulary.offset(Kind.PITCH)
        lowest, highest = min(KEYBOARD[0], pitch.min()), max(KEYBOARD[1], pitch.max())
        down, up = min(largest, pitch.min() - lowest), min(largest, highest - pitch.max())
        tokens[at] += int(drawn * (down + up + 1)) - down

    def n_targets(self, windows: Windows) -> int:
        """Number of targets that count in these windows."""
        flat = self._flat[windows.piece] if self._is_velocity.any() else np.zeros(len(windows), bool)
        not_flat = windows.take(np.flatnonzero(~flat))
        count = int((not_flat.stop - not_flat.scored).sum())
        return count + sum(
            int((self.labels(windows, row) != IGNORE).sum()) for row in np.flatnonzero(flat).tolist()
        )

    def label_counts(self, windows: Windows) -> NDArray[np.int64]:
        """[V] how often each id is a target in these windows."""
        counts = np.zeros(self.store.vocabulary.size, np.int64)
        for row in range(len(windows)):
            labels = self.labels(windows, row)
            counts += np.bincount(labels[labels != IGNORE], minlength=counts.size)
        return counts

    def piece_label_counts(self, pieces: list[int]) -> NDArray[np.int64]:
        """[V] how often each id is a target in these pieces."""
        counts = np.zeros(self.store.vocabulary.size, np.int64)
        for piece in pieces:
            in_piece = np.bincount(self.store.ids(piece)[1:], minlength=counts.size)
            counts += np.where(self._is_velocity & self._flat[piece], 0, in_piece)
        return counts
