"""Two pieces in one order and transposition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pianolm.data.works.alignment import align, longest_ascending
from pianolm.data.works.note_sketch import sketch_notes
from tests.data.works.toys import joined, music, rendition


def test_a_rendition_is_covered_and_its_transposition_found() -> None:
    a, b = sketch_notes(music(0)), sketch_notes(rendition(music(0), 1, shift=3))
    alignment = align(a, b)
    assert alignment.transposition == 3
    assert alignment.common > 50
    assert alignment.coverage > 0.8
    assert align(b, a).transposition == -3


def test_other_music_has_hardly_anything_in_order() -> None:
    alignments = [align(sketch_notes(music(a)), sketch_notes(music(b))) for a, b in combinations(range(8), 2)]
    assert max(alignment.common for alignment in alignments) < 8


def test_a_cut_and_an_excerpt_do_not_matter() -> None:
    parts = [music(seed, notes=200) for seed in range(3)]
    whole = sketch_notes(joined(*parts))
    for other in (joined(parts[0], parts[2]), parts[1]):
        assert align(whole, sketch_notes(rendition(other, 5))).coverage > 0.8


def test_passages_in_another_order_are_covered_in_part() -> None:
    parts = [music(seed, notes=200) for seed in range(4)]
    whole, shuffled = sketch_notes(joined(*parts)), sketch_notes(joined(*reversed(parts)))
    assert align(whole, shuffled).coverage < 0.5


def test_a_piece_without_shingles_aligns_with_nothing() -> None:
    empty = sketch_notes(music(0, notes=4))
    assert align(empty, sketch_notes(music(0))).common == 0
    assert align(empty, empty).coverage == 0


@given(st.lists(st.integers(0, 20), max_size=9))
def test_the_longest_ascending_subsequence(values: list[int]) -> None:
    chain = longest_ascending(np.array(values, np.int32))
    found = [values[i] for i in chain]
    assert found == sorted(set(found))
    assert chain == sorted(chain)
    longest = max(
        (n for n in range(len(values) + 1) for s in combinations(values, n) if all(np.diff(s) > 0)), default=0
    )
    assert len(chain) == longest
