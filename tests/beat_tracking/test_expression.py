"""Performances made for scores: what they change and what they keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pianolm.beat_tracking.expression import FASTEST_BPM, SLOWEST_BPM, perform
from tests.beat_tracking.toys import waltz

SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_performance_has_ascending_beats_and_playable_notes(seed: int) -> None:
    music = waltz()
    played = perform(music, np.random.default_rng(seed), transpose=6)
    notes = played.notes
    assert 0.3 * music.pitch.size <= notes.size <= music.pitch.size
    assert played.beats_sec.size == music.n_beats + 1
    assert np.diff(played.beats_sec).min() >= 0.1
    assert np.diff(played.beats_sec).max() <= 4 + 1e-6
    assert played.downbeats_sec is not None
    np.testing.assert_array_equal(played.downbeats_sec, played.beats_sec[::3][:-1])
    assert (notes["offset_sec"] >= notes["onset_sec"]).all()
    for pitch in np.unique(notes["pitch"]):
        same = notes[notes["pitch"] == pitch]
        assert (same["offset_sec"][:-1] <= same["onset_sec"][1:]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_notes_stay_near_their_beats(seed: int) -> None:
    """Nearly every beat has an onset within a tenth of a second, since every beat of the score has notes."""
    played = perform(waltz(), np.random.default_rng(seed))
    distance = np.abs(played.notes["onset_sec"][None] - played.beats_sec[:-1, None]).min(axis=1)
    assert (distance < 0.1).mean() > 0.9


def test_performances_differ_in_tempo_rubato_and_dynamics() -> None:
    played = [perform(waltz(), np.random.default_rng(seed)) for seed in range(60)]
    tempo_bpm = [60 / np.median(np.diff(p.beats_sec)) for p in played]
    assert SLOWEST_BPM * 0.5 < min(tempo_bpm) < 90 < 150 < max(tempo_bpm) < FASTEST_BPM * 2
    rubato = [np.log(np.diff(p.beats_sec)).std() for p in played]
    assert min(rubato) < 1e-6  # some are in strict time
    assert max(rubato) > 0.25
    spread = [p.notes["velocity"].std() for p in played]
    assert min(spread) == 0
    assert max(spread) > 8


def test_a_recorded_performance_keeps_its_own_timing_in_most_excerpts() -> None:
    swung = replace(
        waltz(is_score=False), beats_sec=np.cumsum([0, *np.tile([0.5, 0.4, 0.6], 16)]).astype(float)
    )
    kept = 0
    for seed in range(40):
        played = perform(swung, np.random.default_rng(seed))
        ratio = np.diff(played.beats_sec) / np.diff(swung.beats_sec)
        kept += bool(np.ptp(ratio) < 1e-9)
    assert 15 < kept < 38


def test_bars_that_are_unknown_stay_unknown() -> None:
    played = perform(waltz(with_bars=False), np.random.default_rng(0))
    assert played.downbeats_sec is None


def test_transposition_is_bounded_and_keeps_intervals() -> None:
    music = waltz()
    steps = set()
    for seed in range(40):
        played = perform(music, np.random.default_rng(seed), transpose=3)
        steps.add(int(played.notes["pitch"].max()) - 76)
    assert steps <= set(range(-17, 4))  # a hand may be left out
    assert {-3, 3} <= steps


def test_equal_random_numbers_give_equal_performances() -> None:
    first, second = (perform(waltz(), np.random.default_rng(3), 6) for _ in range(2))
    np.testing.assert_array_equal(first.notes, second.notes)
    np.testing.assert_array_equal(first.beats_sec, second.beats_sec)
