"""From notes to beats, by a tracker whose weights are set by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.music.beat_decoding import DecodingSettings
from pianolm.music.beat_estimation import estimate_beats, load_tracker, snap_to_onsets
from pianolm.music.notes import Notes, make_notes
from tests.music.toy_tracker import bass_tracker

BEAT_SEC = 0.55


def waltz(n_beats: int, start_sec: float = 0.0) -> Notes:
    """A bass note a beat, long on every third beat, with two higher notes after each."""
    beat = start_sec + BEAT_SEC * np.arange(n_beats)
    is_first = np.arange(n_beats) % 3 == 0
    onset = np.concatenate([beat, beat + BEAT_SEC / 2, beat + BEAT_SEC / 2])
    length = np.concatenate([np.where(is_first, 1.4, 0.2), np.full(2 * n_beats, 0.1)])
    pitch = np.repeat([40, 60, 64], n_beats)
    return make_notes(onset, onset + length, pitch, np.full(3 * n_beats, 64))


def test_beats_and_bars_are_found_at_the_notes() -> None:
    estimate = estimate_beats(waltz(40, 3.0), bass_tracker())
    np.testing.assert_allclose(estimate.beats_sec, 3.0 + BEAT_SEC * np.arange(40), atol=1e-9)
    np.testing.assert_array_equal(estimate.downbeat, np.arange(40) % 3 == 0)
    assert estimate.confidence > 0.8
    assert estimate.annotation.beats_sec is estimate.beats_sec


def test_music_after_a_long_pause_is_tracked_apart() -> None:
    second = waltz(20, 3600 * 24 * 300.0)
    estimate = estimate_beats(np.concatenate([waltz(20), second]), bass_tracker())
    assert estimate.beats_sec.size == 40
    np.testing.assert_allclose(estimate.beats_sec[20:], second["onset_sec"][second["pitch"] == 40], atol=1e-6)


@pytest.mark.parametrize("pitches", [[60], [60, 64, 67]])
def test_a_single_chord_has_two_beats_and_no_confidence(pitches: list[int]) -> None:
    notes = make_notes([2.0] * len(pitches), [3.0] * len(pitches), pitches, [64] * len(pitches))
    estimate = estimate_beats(notes, bass_tracker())
    assert estimate.beats_sec.tolist() == [2.0, 2.5]
    assert estimate.downbeat.tolist() == [True, False]
    assert estimate.confidence == 0


def test_beats_of_impossible_tempo_are_merged() -> None:
    onset = 0.1 * np.arange(60)
    notes = make_notes(onset, onset + 0.05, np.full(60, 40), np.full(60, 64))
    estimate = estimate_beats(notes, bass_tracker(), DecodingSettings(fastest_bpm=1000))
    np.testing.assert_allclose(estimate.beats_sec, onset[::2])
    assert estimate.downbeat.size == 30


def test_beats_move_to_onsets_that_are_near() -> None:
    beats, onsets = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.03, 1.97, 2.02, 3.05])
    np.testing.assert_array_equal(snap_to_onsets(beats, onsets), [1.03, 2.02, 3.0, 4.0])


def test_a_tracker_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train one with stage=beats"):
        load_tracker(tmp_path)
    bass_tracker().save(tmp_path)
    assert load_tracker(tmp_path) is load_tracker(str(tmp_path))  # loaded once
