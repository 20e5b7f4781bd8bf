"""Features of notes: what they say, and that velocities have no part in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pianolm.data.beat_notes import BeatNotes
from pianolm.dynamics.features import FEATURES, NoteFeatures, note_features
from tests.dynamics.toys import played


def music(n_bars: int = 4) -> BeatNotes:
    piece = played(n_bars)
    return BeatNotes.of_frames(piece.frame_notes, piece.beats_sec, piece.bar_starts)


def column(features: NoteFeatures, name: str) -> np.ndarray:
    from pianolm.dynamics.features import _NAMES

    return features.values[:, _NAMES.index(name)]


def test_notes_know_their_place_in_chord_and_bar() -> None:
    features = note_features(music())
    assert features.values.shape == (36, FEATURES)
    np.testing.assert_array_equal(column(features, "is_top"), np.tile([0, 0, 1], 12))
    np.testing.assert_array_equal(column(features, "is_bottom"), np.tile([1, 0, 0], 12))
    np.testing.assert_array_equal(features.bar_position, np.repeat(np.tile([1, 2, 3], 4), 3))
    assert (features.bar_length[:27] == 3).all()
    assert (features.frame == 0).all()
    assert np.abs(features.values).max() < 6


def test_times_are_logarithms_around_usual_ones() -> None:
    features = note_features(music())
    np.testing.assert_allclose(column(features, "tempo"), np.log2(0.5 / 0.6) / 2, atol=1e-6)
    middle = slice(3, -3)
    np.testing.assert_allclose(
        column(features, "since_previous_sec")[middle], np.log2(0.5 / 0.3) / 2, atol=1e-6
    )
    np.testing.assert_allclose(column(features, "until_next_sec")[middle], np.log2(0.5 / 0.3) / 2, atol=1e-6)


def test_velocities_have_no_influence() -> None:
    one, other = music(), replace(music(), velocity=np.ones(36, np.int64))
    for a, b in zip(note_features(one), note_features(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bars_may_be_unknown() -> None:
    features = note_features(replace(music(), bar_start=np.zeros(0, np.intp)))
    assert (features.bar_position == 0).all()
    assert (features.bar_length == 0).all()
