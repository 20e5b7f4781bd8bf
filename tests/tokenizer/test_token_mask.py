"""Sets of ids that may come: at each place what the grammar allows there, packed and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.music.cells import Cells
from pianolm.tokenizer.token_mask import LegalIds, legal_ids, unpacked
from tests.tokenizer.test_tokenizer import beat_times, random_cells
from tests.tokenizer.test_tokenizer_held import MODES, made

BEATS = 12


def music(seed: int) -> Cells:
    return random_cells(seed, 150, BEATS)


@pytest.mark.parametrize("held", ["cells", "codes", "ages"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_sets_are_those_of_the_grammar_token_by_token(mode: tuple[bool, str, bool], held: str) -> None:
    tokenizer = made(*mode, held=held)
    ids = tokenizer.encode_cells(music(1), beat_times(1, BEATS), np.arange(0, BEATS, 3))
    found = legal_ids(tokenizer.grammar, ids)
    rows = unpacked(found.packed[found.which], tokenizer.vocabulary.size)
    assert len(found.packed) < ids.size  # equal sets are kept once
    assert len(np.unique(found.packed, axis=0)) == len(found.packed)
    state = tokenizer.grammar.start()
    for token, row in zip(ids.tolist(), rows, strict=True):
        assert np.array_equal(row, tokenizer.grammar.allowed(state))
        assert row[token]
        state = tokenizer.grammar.advance(state, token)


def test_a_token_out_of_place_is_named() -> None:
    tokenizer = made()
    ids = tokenizer.encode_cells(music(2), beat_times(2, BEATS))
    ids[1] = 0  # an L1 code before any beat
    with pytest.raises(ValueError, match="found, expected one of TEMPO"):
        legal_ids(tokenizer.grammar, ids)


@given(st.integers(1, 40), st.lists(st.integers(0, 2**30), min_size=1, max_size=20))
def test_packed_sets_come_back(size: int, seeds: list[int]) -> None:
    sets = [np.random.default_rng(seed).random(size) < 0.5 for seed in seeds]
    found = LegalIds.from_sets(sets)
    assert np.array_equal(unpacked(found.packed[found.which], size), np.stack(sets))
