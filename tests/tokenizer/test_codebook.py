from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm.tokenizer.codebook import Patterns, eighth_patterns
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.vocabulary import EIGHTH_PATTERNS, Kind, Vocabulary
from tests.tokenizer.toys import VOCABULARY, codebook, patterns


def test_the_fourth_level_has_every_pattern_of_six_frames() -> None:
    sustain, onset = eighth_patterns()
    assert sustain.size == EIGHTH_PATTERNS
    assert sustain[0] == 0
    assert len(set(zip(sustain.tolist(), onset.tolist(), strict=True))) == EIGHTH_PATTERNS


@given(st.lists(patterns(), min_size=1, max_size=50))
@settings(max_examples=60)
def test_every_possible_cell_round_trips_with_an_untrained_codebook(cells: list) -> None:
    sustain, onset = np.array(cells, np.uint64).T
    back = codebook("untrained").decode(codebook("untrained").encode(sustain, onset))
    assert np.array_equal(back.sustain, sustain)
    assert np.array_equal(back.onset, onset)


@given(st.lists(patterns(), min_size=1, max_size=30), st.lists(patterns(), max_size=40), st.integers(1, 40))
@settings(max_examples=60)
def test_every_possible_cell_round_trips_with_any_codebook(cells: list, known: list, size: int) -> None:
    """Codebooks of any small size with any patterns in them, known cells among those encoded."""
    vocabulary = Vocabulary(l1=size, l2=1 + size // 2, l3=1 + size // 3)
    masks = np.array(known, np.uint64).reshape(-1, 2)
    levels = [Patterns(*(masks & np.uint64((1 << frames) - 1)).T) for frames in (48, 24, 12)]
    book = complete([level.take(level.sustain != 0) for level in levels], vocabulary)
    sustain, onset = np.array(cells + known, np.uint64).T
    back = book.decode(book.encode(sustain, onset))
    assert np.array_equal(back.sustain, sustain)
    assert np.array_equal(back.onset, onset)


@given(st.lists(patterns(), min_size=1, max_size=30))
@settings(max_examples=30)
def test_with_three_levels_cells_stay_well_formed(cells: list) -> None:
    sustain, onset = np.array(cells, np.uint64).T
    ids = codebook("untrained").encode(sustain, onset, exact=False)
    assert not (VOCABULARY.kind_of[ids[ids >= 0]] == Kind.L4).any()
    assert (codebook("untrained").decode(ids).sustain != 0).all()


def test_with_three_levels_a_quarter_takes_the_nearest_code() -> None:
    book = codebook("untrained")
    sustain = np.array(
        [0b101010101010], np.uint64
    )  # struck in six frames of the first quarter: no level has it
    ids = book.encode(sustain, sustain, exact=False)
    back = book.decode(ids)
    wrong = int(np.bitwise_count((back.sustain ^ sustain) | (back.onset ^ sustain))[0])
    quarter = book.levels[2]
    nearest = np.bitwise_count((quarter.sustain ^ sustain) | (quarter.onset ^ sustain))[quarter.sustain > 0]
    assert 0 < wrong <= int(nearest.min())
