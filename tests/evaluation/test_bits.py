"""Each token is scored once, as a full forward pass scores it, with the context that is promised."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm.data.token_store import beat_positions
from pianolm.evaluation.bits import UNCONSTRAINED, TokenizedPiece, score_pieces, sliding_windows
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.token_mask import TokenMasks, token_masks
from tests.evaluation.toys import toy_model
from tests.toy_tokens import VOCABULARY, sequence

GRAMMAR = Grammar(VOCABULARY, velocity=True, silent=np.zeros(VOCABULARY.size, bool))


def naive_bits(model: LlamaForCausalLM, ids: NDArray[np.int64], start: int, at: int) -> tuple[float, float]:
    """Bits of one token given those from `start` on: among all ids, and among those that the grammar allows."""
    state = GRAMMAR.start()
    for token in ids[:at].tolist():
        state = GRAMMAR.advance(state, token)
    with torch.no_grad():
        p = model(torch.from_numpy(ids[None, start:at])).logits[0, -1].double().softmax(-1).numpy()
    return -math.log2(p[ids[at]] / p.sum()), -math.log2(p[ids[at]] / p[GRAMMAR.allowed(state)].sum())


def tokenized(ids: NDArray[np.int64], starts: NDArray[np.int64] | None = None) -> TokenizedPiece:
    return TokenizedPiece(ids, starts, {"constrained": token_masks(GRAMMAR, ids)})


@given(st.data())
def test_windows_score_each_target_once_with_the_context_promised(data: st.DataObject) -> None:
    context = data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, context))
    n_tokens = data.draw(st.integers(2, 200))
    later = data.draw(st.sets(st.integers(1, n_tokens - 1)))
    starts = np.array([0, *sorted(later)])
    windows = list(sliding_windows(n_tokens, starts, context, stride))
    scored = np.concatenate([np.arange(w.scored, w.stop) for w in windows])
    assert np.array_equal(scored, np.arange(1, n_tokens))
    for window, before in zip(windows[1:], windows, strict=False):
        assert window.stop - window.start - 1 <= context
        assert window.scored - window.start >= context + 1 - stride
        assert window.start in starts or not np.isin(np.arange(before.start + 1, window.start), starts).any()


@pytest.mark.parametrize("stride", [1, 5, 24, 32])
def test_each_token_costs_what_a_pass_over_its_window_says(stride: int) -> None:
    """The windows are counted here in a second way, and each token is scored alone."""
    model, context = toy_model(32), 32
    pieces = [sequence(seed, beats=beats) for seed, beats in ((0, 20), (1, 1), (2, 9))]
    beats = [beat_positions(ids, VOCABULARY) for ids in pieces]
    scores = list(score_pieces(model, map(tokenized, pieces, beats), stride, batch_tokens=3 * context))
    assert max(ids.size for ids in pieces) > 3 * context
    for ids, starts, bits in zip(pieces, beats, scores, strict=True):
        start = 0
        assert bits[UNCONSTRAINED][0] == bits["constrained"][0] == 0
        assert (bits["constrained"] <= bits[UNCONSTRAINED] + 1e-6).all()
        for at in range(1, ids.size):
            if at > start + context:
                aligned = [b for b in starts if start < b <= start + stride]
                start = int(aligned[-1]) if aligned else start + stride
            expected = naive_bits(model, ids, start, at)
            assert (bits[UNCONSTRAINED][at], bits["constrained"][at]) == pytest.approx(expected, abs=1e-4)


def test_later_windows_of_a_tuned_piece_begin_with_its_tuning() -> None:
    model, context, stride = toy_model(32), 32, 16
    ids = sequence(5, beats=20)
    tuning = int(ids[1])  # any id serves: the model is not asked what it means
    piece = TokenizedPiece(ids, beat_positions(ids, VOCABULARY), tuning=tuning)
    (bits,) = score_pieces(model, [piece], stride)
    (plain,) = score_pieces(model, [replace(piece, tuning=None)], stride)
    assert np.array_equal(bits[UNCONSTRAINED][: context + 1], plain[UNCONSTRAINED][: context + 1])
    windows = list(sliding_windows(ids.size, piece.window_starts, context, stride, context - 1))
    assert np.array_equal(
        np.concatenate([np.arange(w.scored, w.stop) for w in windows]), np.arange(1, ids.size)
    )
    assert len(windows) > 3
    for window in windows[1:]:
        inputs = piece.inputs(window)
        assert inputs.size <= context
        assert inputs.tolist() == [tuning, *ids[window.start : window.stop - 1].tolist()]
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.from_numpy(inputs[None])).logits[0].double(), -1).numpy()
        scored = np.arange(window.scored, window.stop)
        expected = -log_p[scored - window.start, ids[scored]] / math.log(2)
        assert np.allclose(bits[UNCONSTRAINED][scored], expected, atol=1e-4)


def test_a_piece_within_the_context_is_one_full_pass() -> None:
    model, ids = toy_model(512), sequence(3, beats=12)
    (bits,) = score_pieces(model, [tokenized(ids)])
    with torch.no_grad():
        log_p = torch.log_softmax(model(torch.from_numpy(ids[None])).logits[0].double(), -1).numpy()
    expected = -log_p[np.arange(ids.size - 1), ids[1:]] / math.log(2)
    assert np.allclose(bits[UNCONSTRAINED][1:], expected, atol=1e-4)


def test_any_tokenization_is_scored_under_any_masks() -> None:
    """Windows start anywhere, and a mask of one id costs nothing; bits are those of the default stride and context."""
    model, ids = toy_model(32), np.random.default_rng(0).integers(VOCABULARY.size, size=100)
    others = np.arange(VOCABULARY.size) % 7 == ids[50] % 7
    only_one = TokenMasks.from_masks(np.arange(VOCABULARY.size) == token for token in ids)
    every_seventh = TokenMasks.from_masks(others if at == 50 else np.ones_like(others) for at in range(100))
    piece = TokenizedPiece(ids, token_masks={"given": only_one, "seventh": every_seventh})
    (bits,) = score_pieces(model, [piece])
    assert not bits["given"].any()
    assert bits["seventh"][50] < bits[UNCONSTRAINED][50]
    assert np.allclose(np.delete(bits["seventh"], 50), np.delete(bits[UNCONSTRAINED], 50), atol=1e-4)
    (again,) = score_pieces(model, [TokenizedPiece(ids)], stride=16, context=32)
    assert np.allclose(again[UNCONSTRAINED], bits[UNCONSTRAINED], atol=1e-4)
    (shorter,) = score_pieces(model, [TokenizedPiece(ids)], context=8)
    assert shorter[UNCONSTRAINED].sum() != pytest.approx(bits[UNCONSTRAINED].sum(), rel=1e-3)
