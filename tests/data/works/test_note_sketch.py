"""Shingles of a piece's outer lines."""

from __future__ import annotations

import numpy as np

from pianolm.data.works.note_sketch import outer_line, sketch_notes
from pianolm.music.notes import make_notes, sort_notes
from tests.data.works.toys import joined, music, rendition


def test_the_outer_lines_pass_over_inner_notes_and_rolled_chords() -> None:
    onset = np.array([0.0, 0.02, 0.04, 0.5, 0.52, 1.0])
    pitch = np.array([48, 60, 72, 74, 50, 55], np.int16)
    assert outer_line(onset, pitch).tolist() == [2, 3, 5]
    assert outer_line(onset, -pitch).tolist() == [0, 4, 5]


def test_one_of_two_equal_notes_counts() -> None:
    onset = np.array([0.0, 0.0, 0.03, 1.0])
    assert outer_line(onset, np.array([60, 60, 60, 62], np.int16)).tolist() == [0, 3]


def test_transposition_and_tempo_change_no_shingle() -> None:
    notes = music(0)
    other = notes.copy()
    other["pitch"] += 5
    other["onset_sec"] *= 1.7
    other["offset_sec"] *= 1.7
    a, b = sketch_notes(notes), sketch_notes(other)
    assert a.hashes.size > 100
    np.testing.assert_array_equal(a.hashes, b.hashes)
    np.testing.assert_array_equal(a.signature, b.signature)
    assert set((b.pitch.astype(int) - a.pitch).tolist()) == {5}


def test_the_signature_estimates_the_jaccard_index() -> None:
    a = sketch_notes(music(1))
    b = sketch_notes(rendition(music(1), 2))
    common = np.intersect1d(a.hashes, b.hashes).size
    jaccard = common / (a.hashes.size + b.hashes.size - common)
    assert 0.2 < jaccard < 0.95
    assert abs((a.signature == b.signature).mean() - jaccard) < 0.2  # three standard deviations of 64 draws
    assert (a.signature == sketch_notes(music(3)).signature).sum() == 0


def test_of_a_long_piece_some_shingles_are_kept_and_repeats_count_once() -> None:
    long = sketch_notes(music(4, notes=2000))
    assert (long.hashes.size, long.complete) == (512, False)
    assert (np.diff(long.hashes.astype(np.int64)) > 0).all()
    once, twice = sketch_notes(music(5)), sketch_notes(joined(music(5), music(5)))
    assert np.isin(once.hashes, twice.hashes).all()
    assert twice.hashes.size <= once.hashes.size + 12  # those across the join, in both lines


def test_a_piece_of_a_few_notes_or_of_one_figure_has_no_shingles() -> None:
    few = make_notes(np.arange(6.0), np.arange(6.0) + 0.5, np.arange(60, 66), np.full(6, 64))
    assert sketch_notes(few).hashes.size == 0
    onset = np.arange(200) * 0.1
    trill = sort_notes(make_notes(onset, onset + 0.05, 60 + np.arange(200) % 2, np.full(200, 64)))
    assert sketch_notes(trill).hashes.size == 0
