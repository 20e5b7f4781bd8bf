"""Scores token sequences of any tokenization: every token once, with at least half of the model's context before it.

`evaluate=lm` scores performances with it, and the experiments score the tokens of other tokenizers.

Shapes: T tokens of a piece, N window starts, C inputs of a window (the context), B windows of a batch, n targets,
S distinct sets of ids, V ids, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.lm.loss import IGNORE, head_nll
from pianolm.lm.scorer import TargetStates, target_states
from pianolm.tokenizer.token_mask import TokenMasks, unpack_masks

Ids = NDArray[np.int64]
Bits = NDArray[np.float64]

UNCONSTRAINED = "unconstrained"
"""Name of the bits that no token mask restricts."""
BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Default number of inputs scored at a time; the result does not depend on it."""


class Window(NamedTuple):
    """A run of a piece's tokens: the inputs are `start` … `stop` − 2, the scored targets `scored` … `stop` − 1."""

    start: int
    scored: int
    stop: int


@dataclass(frozen=True)
class TokenizedPiece:
    """A piece to score.

    Attributes:
        ids: [T] at least 2 ids. The first is given (BOS), so it is not scored.
        window_starts: [N] ascending positions where windows preferably start, beginning with 0; beats, for example.
            None allows any position.
        token_masks: By name, the ids among which each target is chosen. The bits under each mask are returned beside
            the unconstrained ones.
        tuning: Id of the tuning that the piece states, which is put before windows that start later than the piece;
            None for a piece without a tuning.
    """

    ids: Ids
    window_starts: Ids | None = None
    token_masks: Mapping[str, TokenMasks] = field(default_factory=dict)
    tuning: int | None = None

    def inputs(self, window: Window) -> Ids:
        """The ids that a model reads of a window."""
        ids = self.ids[window.start : window.stop - 1]
        return ids if self.tuning is None or not window.start else np.insert(ids, 0, self.tuning)


def score_pieces(
    model: LlamaForCausalLM,
    pieces: Iterable[TokenizedPiece],
    stride: int | None = None,
    context: int | None = None,
    batch_tokens: int | None = None,
) -> Iterator[dict[str, Bits]]:
    """Scores every token of some pieces once. Windows of a batch may belong to several pieces.

        scores = score_pieces(model.eval(), [TokenizedPiece(ids) for ids in sequences])
        bits_per_note = sum(score[UNCONSTRAINED].sum() for score in scores) / notes

    Args:
        model: In evaluation mode; autocast applies where it is on.
        pieces: The music, consumed lazily.
        stride: Most tokens between the starts of two windows, 1 … C. Each token sees at least C + 1 − stride tokens,
            or its piece from the beginning. None is half of the context.
        context: C. None is the longest sequence the model was trained on.
        batch_tokens: Inputs scored at a time; None is `BATCH_TOKENS` of the device.

    Yields:
        For each piece in order its bits [T] by name: `UNCONSTRAINED`, among all ids, and one entry per token mask.
        The first token has 0 bits. The base-2 logarithm is taken: bits = nats / ln 2.
    """
    context = int(model.config.max_position_embeddings) if context is None else context
    stride = max(context // 2, 1) if stride is None else stride
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"])
    windows = _piece_windows(pieces, context, stride)
    while batch := list(islice(windows, max(batch_tokens // context, 1))):
        _score_batch(model, batch)
        yield from (item.bits for item in batch if item.window.stop == item.piece.ids.size)


def sliding_windows(
    n_tokens: int, window_starts: Ids | None, context: int, stride: int, later_context: int | None = None
) -> Iterator[Window]:
    """Windows that score each of the targets 1 … `n_tokens` − 1 once.

    Args:
        n_tokens: T.
        window_starts: See `TokenizedPiece`. A window starts elsewhere only where two of them are further apart than
            the stride.
        context: C.
        stride: Most tokens from the start of one window to the next, 1 … C.
        later_context: Most inputs of all windows but the first; None for C.
    """
    later_context = context if later_context is None else later_context
    window = Window(0, 1, min(context + 1, n_tokens))
    while window.scored < n_tokens:
        if window.scored < window.stop:
            yield window
        start = latest = window.start + stride
        if window_starts is not None:
            preferred = int(window_starts[np.searchsorted(window_starts, latest, side="right") - 1])
            start = preferred if preferred > window.start else latest
        stop = max(window.stop, min(start + later_context + 1, n_tokens))
        window = Window(start, window.stop, stop)


class _PieceWindow(NamedTuple):
    """A window of a piece, and the piece's arrays that its bits are written to."""

    piece: TokenizedPiece
    bits: dict[str, Bits]
    window: Window


def _piece_windows(pieces: Iterable[TokenizedPiece], context: int, stride: int) -> Iterator[_PieceWindow]:
    for piece in pieces:
        bits = {name: np.zeros(piece.ids.size) for name in (UNCONSTRAINED, *piece.token_masks)}
        later_context = context - (piece.tuning is not None)
        windows = sliding_windows(piece.ids.size, piece.window_starts, context, stride, later_context)
        for window in windows:
            yield _PieceWindow(piece, bits, window)


@torch.inference_mode()
def _score_batch(model: LlamaForCausalLM, batch: list[_PieceWindow]) -> None:
    """Writes the bits of the scored targets of each window into its piece's arrays."""
    input_ids_BC, labels_BC = (torch.from_numpy(rows).to(model.device) for rows in _rows(model, batch))
    states = target_states(model, input_ids_BC, labels_BC)
    nll = {UNCONSTRAINED: head_nll(*states)[1]}
    for name in batch[0].piece.token_masks:
        nll[name] = _constrained_nll(states, batch, name)
    ends = np.cumsum([item.window.stop - item.window.scored for item in batch])[:-1]
    for name, nll_n in nll.items():
        bits_n = nll_n.double().cpu().numpy() / math.log(2)
        for (_, bits, (_, scored, stop)), bits_of_window in zip(batch, np.split(bits_n, ends), strict=True):
            bits[name][scored:stop] = bits_of_window


def _rows(model: LlamaForCausalLM, batch: list[_PieceWindow]) -> tuple[Ids, Ids]:
    """Input ids and labels [B, C] of some windows, padded at the end."""
    inputs = [item.piece.inputs(item.window) for item in batch]
    shape = len(batch), max(ids.size for ids in inputs)
    input_ids_BC, labels_BC = np.full(shape, model.config.pad_token_id), np.full(shape, IGNORE)
    for row, (ids, (piece, _, (_, scored, stop))) in enumerate(zip(inputs, batch, strict=True)):
        input_ids_BC[row, : ids.size] = ids
        labels_BC[row, ids.size - (stop - scored) : ids.size] = piece.ids[scored:stop]
    return input_ids_BC, labels_BC


def _constrained_nll(states: TargetStates, batch: list[_PieceWindow], name: str) -> Tensor:
    """[n] nats of the targets, each among the ids that the token mask `name` allows there."""
    packed_sets, set_of_target, n_sets = [], [], 0
    for piece, _, (_, scored, stop) in batch:
        mask = piece.token_masks[name]
        used, set_of_window = np.unique(mask.row[scored:stop], return_inverse=True)
        packed_sets.append(mask.packed[used])
        set_of_target.append(n_sets + set_of_window)
        n_sets += used.size
    allowed_SV = torch.from_numpy(unpack_masks(np.concatenate(packed_sets), len(states.weight)))
    set_n = torch.from_numpy(np.concatenate(set_of_target))
    device = states.weight.device
    return head_nll(*states, allowed_SV.to(device), set_n.to(device))[1]
