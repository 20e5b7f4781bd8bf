"""Excerpts: features, targets and what of them is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm.beat_tracking.excerpts import Performance, excerpt
from pianolm.data.beat_notes import BeatNotes
from pianolm.music.notes import make_notes
from tests.beat_tracking.toys import make_store, waltz


def steady(n_beats: int, downbeats: bool = True) -> Performance:
    beats = 0.5 * np.arange(n_beats)
    notes = make_notes(beats, beats + 0.2, np.full(n_beats, 60), np.full(n_beats, 64))
    return Performance(notes, beats, beats[::4] if downbeats else None)


def test_targets_are_where_the_notes_of_the_beats_are() -> None:
    features, target, weight = excerpt(steady(100), 500, np.random.default_rng(1))
    assert features.shape[0] == len(target) == len(weight) == 500
    struck = features[:, 60 - 21]
    # notes are divided between two frames, targets fall to 0 within two frames
    assert ((struck > 0) <= (target[:, 0] > 0.4)).all()
    assert 20 <= (target[:, 0] > 0.7).sum() <= 22
    assert 4 <= (target[:, 1] > 0.7).sum() <= 7
    assert (target[:, 1] <= target[:, 0]).all()
    assert target.max() <= 1


def test_silence_around_short_music_is_not_learned() -> None:
    _, _, weight = excerpt(steady(4), 500, np.random.default_rng(0))
    assert 0 < weight[:, 0].sum() < 120
    assert weight[-1, 0] == 0


def test_downbeats_that_are_unknown_are_not_learned() -> None:
    _, target, weight = excerpt(steady(50, downbeats=False), 500, np.random.default_rng(0))
    assert weight[:, 0].any()
    assert not weight[:, 1].any()
    assert not target[:, 1].any()


def test_excerpts_begin_anywhere() -> None:
    starts = {
        int(excerpt(steady(400), 500, np.random.default_rng(seed)).target[:, 0].argmax())
        for seed in range(30)
    }
    assert len(starts) > 8


def test_a_piece_of_a_store_is_read_in_beats(tmp_path: Path) -> None:
    music, expected = BeatNotes.of_store(make_store(tmp_path / "store", ["train"]), 0), waltz(12)
    np.testing.assert_allclose(music.beats_sec, expected.beats_sec)
    np.testing.assert_array_equal(music.onset_beat, expected.onset_beat)
    np.testing.assert_array_equal(music.pitch, expected.pitch)
    np.testing.assert_array_equal(music.bar_start[:12], expected.bar_start)
    assert music.is_score
    assert (np.diff(music.onset_beat) >= 0).all()
