from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.token_mask import TokenMasks, token_masks, unpack_masks, window_masks
from pianolm.tokenizer.vocabulary import Kind
from tests.tokenizer.toys import BEATS, LAYOUTS, Layout, beat_times, made, random_cells


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_masks_are_those_of_the_grammar_token_by_token(layout: Layout) -> None:
    tokenizer = made(layout)
    ids = tokenizer.encode_cells(random_cells(1, 150, BEATS), beat_times(1, BEATS), np.arange(0, BEATS, 3))
    found = token_masks(tokenizer.grammar, ids)
    rows = unpack_masks(found.packed[found.row], tokenizer.vocabulary.size)
    assert len(found.packed) < ids.size, "equal masks are stored once"
    assert len(np.unique(found.packed, axis=0)) == len(found.packed)
    state = tokenizer.grammar.start()
    for token, row in zip(ids.tolist(), rows, strict=True):
        assert np.array_equal(row, tokenizer.grammar.allowed(state))
        assert row[token]
        state = tokenizer.grammar.advance(state, token)


def test_a_token_out_of_place_is_named() -> None:
    tokenizer = made()
    ids = tokenizer.encode_cells(random_cells(2, 150, BEATS), beat_times(2, BEATS))
    ids[1] = 0  # an L1 code before any beat
    with pytest.raises(ValueError, match="found, expected one of TEMPO"):
        token_masks(tokenizer.grammar, ids)


@given(st.integers(1, 40), st.lists(st.integers(0, 2**30), min_size=1, max_size=20))
def test_packed_masks_come_back(size: int, seeds: list[int]) -> None:
    masks = [np.random.default_rng(seed).random(size) < 0.5 for seed in seeds]
    found = TokenMasks.from_masks(masks)
    assert np.array_equal(unpack_masks(found.packed[found.row], size), np.stack(masks))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_neighbours_in_the_table_are_the_only_ones_in_music(layout: Layout) -> None:
    """Every pair of neighbouring tokens has a phase between them, and its masks hold the second token."""
    tokenizer = made(layout)
    found, v = window_masks(tokenizer.grammar), tokenizer.vocabulary
    assert found.masks[0].all()
    ids = tokenizer.encode_cells(random_cells(1, 150, BEATS), beat_times(1, BEATS), np.arange(0, BEATS, 3))
    state = tokenizer.grammar.start()
    for token, following in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        state = tokenizer.grammar.advance(state, token)
        filled = state.phase - Phase.CODES if Phase.CODES <= state.phase < Phase.VELOCITY else 0
        phase = found.phase[v.kind_of[token], filled, v.kind_of[following]]
        if v.kind_of[following] != Kind.BAR:  # before a bar ties may be pending or not
            assert phase == state.phase
        family = found.masks[found.first[phase] :]
        assert family[:, following].any()
