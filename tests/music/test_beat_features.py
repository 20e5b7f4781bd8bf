"""Features of notes in frames."""

from __future__ import annotations

import numpy as np

from pianolm.music.beat_features import (
    FEATURES,
    FRAMES_PER_SEC,
    LEAD_SEC,
    TAIL_SEC,
    beat_features,
    frame_count,
)
from pianolm.music.notes import make_notes

BASS, TREBLE, RELEASE = FEATURES - 4, FEATURES - 2, FEATURES - 1


def test_a_note_is_divided_between_its_two_nearest_frames() -> None:
    notes = make_notes([1.005], [1.505], [60], [64])
    features = beat_features(notes, 0.0, 100)
    key = 60 - 21
    assert features.shape == (100, FEATURES)
    np.testing.assert_allclose(features[50:52, key], [0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(features[75:77, RELEASE], [0.75, 0.25], atol=1e-6)
    assert features[:, :88].sum() == 1


def test_the_lowest_and_the_highest_of_neighbouring_notes_are_marked() -> None:
    notes = make_notes([1, 1, 1.2, 2, 2.1], [1.5, 1.5, 1.5, 2.5, 2.5], [40, 60, 70, 50, 72], [64] * 5)
    features = beat_features(notes, 0.0, 150)
    assert np.flatnonzero(features[:, BASS]).tolist() == [50, 100]  # 40 and 50
    assert np.flatnonzero(features[:, TREBLE]).tolist() == [60, 105]  # 70 and 72


def test_loudness_is_relative_to_the_median() -> None:
    soft, loud = (
        beat_features(make_notes([0, 1, 2], [0.5, 1.5, 2.5], [60] * 3, np.array([50, 60, 70]) + more), 0, 150)
        for more in (0, 30)
    )
    np.testing.assert_array_equal(soft, loud)
    assert soft.min() < 0 < soft.max()


def test_notes_outside_the_frames_are_left_out_and_any_pitch_has_a_place() -> None:
    notes = make_notes([-1, 0.5, 9], [-0.5, 20, 9.5], [0, 127, 60], [64] * 3)
    assert beat_features(notes, 0.0, 100)[:, :88].sum() == 1
    assert beat_features(notes, 0.0, 100)[25, 87] == 1


def test_frames_reach_from_before_the_first_onset_to_after_the_last() -> None:
    notes = make_notes([3, 7], [3.5, 30], [60, 62], [64, 64])
    assert frame_count(notes) == (4 + LEAD_SEC + TAIL_SEC) * FRAMES_PER_SEC + 1
