"""Reads rows of windows as the tensors of a batch.

Shapes: W windows, R rows, B rows of a micro-batch, T inputs of a row (the context), D random numbers, V ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pianolm.data.token_store import TokenStore
from pianolm.lm.loss import IGNORE
from pianolm.lm.window_rewriter import Rewriter
from pianolm.lm.windows import Rows, Windows
from pianolm.tokenizer.vocabulary import Kind

Batch = dict[str, Any]

KEYBOARD = 21, 108
"""Lowest and highest pitch of a piano."""


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
        labels = sequence.labels[1:].copy()
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
