"""The constrained loss: masks found from a window are those of the grammar for the whole piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pianolm.lm import loss
from pianolm.lm.loss import head_nll
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.tokenizer.token_mask import token_masks, unpack_masks
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind
from tests.tokenizer.toys import BEATS, LAYOUTS, Layout, beat_times, made, random_cells

ANY_OF_A_BEAT = (Kind.BAR, Kind.PITCH, Kind.TEMPO, Kind.EOS)


def encoded(tokenizer: PianoTokenizer, seed: int) -> NDArray[np.int64]:
    return tokenizer.encode_cells(
        random_cells(seed, 150, BEATS), beat_times(seed, BEATS), np.arange(0, BEATS, 3)
    )


def exact(tokenizer: PianoTokenizer, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[T, V] masks of the whole piece, widened by what a window does not show: silence of a cell, and tied pitches."""
    is_pitch = tokenizer.vocabulary.kind_of == Kind.PITCH
    found, kind = token_masks(tokenizer.grammar, ids), tokenizer.vocabulary.kind_of
    masks_TV = unpack_masks(found.packed[found.row], tokenizer.vocabulary.size)
    for at, floor in enumerate(floors(tokenizer, ids)):
        codes = np.flatnonzero(masks_TV[at] & np.isin(kind, [Kind.L1, Kind.L2, Kind.L3, Kind.L4]))
        if codes.size and kind[ids[at - 1]] not in (Kind.TEMPO, Kind.BAR):
            masks_TV[at] |= np.isin(kind, np.unique(kind[codes]))
        elif masks_TV[at][is_pitch].any() and kind[ids[at - 1]] != Kind.DURATION:
            masks_TV[at] |= is_pitch & (tokenizer.grammar.pitch_of > floor)
    return masks_TV


def floors(tokenizer: PianoTokenizer, ids: NDArray[np.int64]) -> list[int]:
    """[T] the last pitch of the beat before each token; those of ties do not count."""
    floor, found, tied = -1, [], False
    for token in ids.tolist():
        found.append(floor)
        if tokenizer.vocabulary.kind_of[token] == Kind.TEMPO:
            floor = -1
        elif tokenizer.vocabulary.kind_of[token] == Kind.PITCH and not tied:
            floor = int(tokenizer.grammar.pitch_of[token])
        tied = tokenizer.vocabulary.kind_of[token] == Kind.DURATION
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_window_has_the_masks_of_the_piece(layout: Layout) -> None:
    tokenizer = made(layout)
    ids = encoded(tokenizer, 1)
    expected = exact(tokenizer, ids)
    targets = MaskedTargets(tokenizer.grammar)
    beats = np.flatnonzero(tokenizer.vocabulary.kind_of[ids] == Kind.TEMPO)
    row, positions, where = [], [], []
    for start, stop in (
        (0, beats[3] + 4),
        (beats[5], beats[8]),
        (beats[8], beats[8] + 2),
        (beats[9], ids.size),
    ):
        row.append(ids[start:stop])
        positions.append(np.arange(stop - start - 1))
        where.append(np.arange(start + 1, stop))
    inputs = torch.from_numpy(np.concatenate([window[:-1] for window in row])[None])
    labels = torch.from_numpy(np.concatenate([window[1:] for window in row])[None])
    which = targets(inputs, labels, torch.from_numpy(np.concatenate(positions)[None]))
    if (
        layout.bars and layout.ties != "repeat"
    ):  # a window that ends with a bar does not show whether ties are pending
        opens = (Kind.DURATION,) if layout.ties == "explicit" else CODE_KINDS
        expected[beats[8] + 1] = np.isin(tokenizer.vocabulary.kind_of, (*ANY_OF_A_BEAT, *opens))
    assert torch.equal(targets.masks[which][0], torch.from_numpy(expected[np.concatenate(where)]))


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one.tempo == "log50_tuned"], ids=str)
def test_a_window_behind_its_tuning_has_the_masks_of_the_piece(layout: Layout) -> None:
    tokenizer = made(layout)
    ids, kind_of = encoded(tokenizer, 1), tokenizer.vocabulary.kind_of
    start, stop = np.flatnonzero(kind_of[ids] == Kind.TEMPO)[[5, 8]].tolist()
    window = torch.from_numpy(np.insert(ids[start:stop], 0, ids[1])[None])
    targets = MaskedTargets(tokenizer.grammar)
    masks = targets.masks[targets(window[:, :-1], window[:, 1:], None)][0].numpy()
    assert np.array_equal(masks[0], kind_of == Kind.TEMPO)
    assert np.array_equal(masks[1:], exact(tokenizer, ids)[start + 1 : stop])
    begin = torch.from_numpy(ids[None, :4])
    masks = targets.masks[targets(begin[:, :-1], begin[:, 1:], None)][0].numpy()
    assert np.array_equal(masks[0], kind_of == Kind.TUNING)
    assert np.array_equal(masks[1], kind_of == Kind.TEMPO)


def test_before_the_first_pitch_of_a_window_within_a_beat_any_id_is_allowed() -> None:
    tokenizer = made(Layout(True))
    targets, kind_of = MaskedTargets(tokenizer.grammar), tokenizer.vocabulary.kind_of
    ids = encoded(tokenizer, 2)
    (pitch, second) = np.flatnonzero(kind_of[ids] == Kind.PITCH)[2:4]
    window = torch.from_numpy(ids[None, pitch + 1 : second + 4])
    sets = targets.masks[targets(window[:, :-1], window[:, 1:], None)][0]
    before = second - pitch - 1
    assert sets[:before].all()
    assert not sets[before:].all(dim=1).any()
    assert np.array_equal(sets[before:].numpy(), exact(tokenizer, ids)[second + 1 : second + 4])


@pytest.mark.parametrize("bars", [False, True])
def test_a_window_that_begins_within_ties_has_no_wrong_mask(bars: bool) -> None:
    """Its first pitch may be that of a tie or of a cell; from the next duration, pitch or tempo on all is known."""
    tokenizer = made(Layout(True, "explicit", bars))
    targets, kind_of = MaskedTargets(tokenizer.grammar), tokenizer.vocabulary.kind_of
    ids = encoded(tokenizer, 2)
    expected = exact(tokenizer, ids)
    known = 0
    for start in range(2, 200):
        window = torch.from_numpy(ids[None, start : start + 60])
        sets = targets.masks[targets(window[:, :-1], window[:, 1:], None)][0].numpy()
        for place, (found, wanted) in enumerate(zip(sets, expected[start + 1 : start + 60], strict=True)):
            at = start + 1 + place
            if bars and at == start + 59 and kind_of[ids[at]] == Kind.BAR:
                continue
            assert found[ids[at]], "the target is in its mask"
            assert np.array_equal(found, wanted) or found.all()
            known += not found.all()
        after_head = np.isin(kind_of[ids[start : start + 59]], (Kind.TEMPO, Kind.DURATION))
        assert not sets[after_head].all(axis=1).any()
    assert known > 0.9 * 198 * 59


def test_behind_a_piece_another_may_begin() -> None:
    tokenizer = made()
    ids = encoded(tokenizer, 3)
    joined = torch.from_numpy(np.concatenate([ids, ids])[None])
    targets = MaskedTargets(tokenizer.grammar)
    sets = targets.masks[targets(joined[:, :-1], joined[:, 1:], None)][0]
    assert sets.gather(1, joined[0, 1:, None]).all()
    assert torch.equal(sets[: ids.size - 1], sets[ids.size :])


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("chunk", [3, 100])
def test_the_constrained_loss_and_its_gradient_are_those_of_a_masked_softmax(
    chunk: int, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(10, 4, generator=rng, requires_grad=True)
    weight = torch.randn(7, 4, generator=rng, requires_grad=True)
    labels, which = torch.randint(7, (10,), generator=rng), torch.randint(5, (10,), generator=rng)
    sets = torch.rand(5, 7, generator=rng) < 0.5
    for row, label in zip(which.tolist(), labels.tolist(), strict=True):
        sets[row, label] = True
    if forced:  # a set of one id
        sets = torch.cat([sets, torch.eye(7, dtype=torch.bool)])
        which[2:5] = 5 + labels[2:5]
    nats, nll = head_nll(hidden, weight, labels, sets, which)
    nats.backward()
    found = nll, hidden.grad, weight.grad
    assert (nll[2:5] == 0).all() == forced
    hidden.grad = weight.grad = None
    logits = (hidden @ weight.T).masked_fill(~sets[which], -torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected.sum().backward()
    for one, other in zip(found, (expected, hidden.grad, weight.grad), strict=True):
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other, atol=1e-5)
