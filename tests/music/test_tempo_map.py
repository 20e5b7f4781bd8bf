"""Tempo maps of files, and tempo events for beat times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.errors import UserError
from pianolm.music.piece import Piece
from pianolm.music.tempo_map import TempoMap, is_on_grid, tempo_events
from tests.music.midi_events import Event, note, notes, signature, tempo, write_events

DEFAULT = "only the default tempo of 120 BPM, or one that the notes do not follow: beats may not be those of the music"
FREE = [e for index in range(30) for e in note(60 + index % 12, 31, wait=(37 * index) % 83)]
ON_GRID = notes([60, 62, 64, 65])


@pytest.mark.parametrize(
    ("tracks", "is_default"),
    [
        ([ON_GRID], True),
        ([FREE], True),
        ([[tempo(60, wait=150)], ON_GRID], True),  # the first tempo event is late
        ([[tempo(60)], ON_GRID], False),
        ([[tempo(120)], ON_GRID], False),  # the music lies on the grid
        ([[tempo(120)], FREE], True),
        ([[tempo(120), tempo(120, wait=100)], FREE], True),
        ([[tempo(120), tempo(121, wait=100)], FREE], False),
        ([[tempo(100)], FREE], False),
    ],
)
def test_a_file_with_only_the_default_tempo_is_recognised(
    tracks: list[list[Event]], is_default: bool, tmp_path: Path
) -> None:
    path = write_events(tmp_path / "a.mid", *tracks)
    piece = Piece.from_midi(path, "tempo_map", default_tempo="use")
    assert piece.remarks.default_tempo == is_default
    assert piece.remarks.sentences() == [DEFAULT] * is_default
    if not is_default:
        assert Piece.from_midi(path, default_tempo="reject").notes.size == piece.notes.size
        return
    with pytest.raises(UserError, match=r"a\.mid: holds only the default tempo of 120 BPM, or one"):
        Piece.from_midi(path, default_tempo="reject")
    beats = np.arange(6) * 0.45
    assert (
        Piece.from_midi(path, beats, default_tempo="reject").remarks == Piece.from_midi(path, beats).remarks
    )
    with pytest.raises(UserError, match="default_tempo=guess: expected one of estimate, use, reject"):
        Piece.from_midi(path, default_tempo="guess")


def test_bars_against_the_clock_are_unknown(tmp_path: Path) -> None:
    recorded = write_events(tmp_path / "a.mid", [tempo(120), signature(4, 4)], FREE)
    assert Piece.from_midi(recorded, "tempo_map").downbeats_sec is None
    notated = write_events(tmp_path / "b.mid", [signature(3, 4)], ON_GRID)
    assert Piece.from_midi(notated).bar_starts.tolist() == [0, 3]


def played(n_notes: int, deviation: float, step: int = 120, seed: int = 0) -> list[Event]:
    """Sixteenths at 480 ticks a quarter, each off its place by a normal deviation in quarters."""
    places = np.arange(1, n_notes + 1) * step
    ticks = np.sort(
        np.rint(places + np.random.default_rng(seed).normal(0, deviation * 480, n_notes)).astype(int)
    )
    waits = np.maximum(np.diff(ticks, prepend=0) - 1, 0)
    return [e for index, wait in enumerate(waits) for e in note(60 + index % 12, 1, wait=int(wait))]


@pytest.mark.parametrize(
    ("events", "is_clock"),
    [
        (played(400, 0.05), False),  # to a metronome, 30 ms off at 100 BPM
        (played(400, 0.05, step=160), False),  # triplets
        (played(400, 0.0, step=96), False),  # quintuplets, exact
        (played(400, 0.0, step=137), True),  # another tempo than that of the file
        (played(400, 3.0), True),
        (played(60, 3.0), False),  # too few to tell
    ],
)
def test_a_constant_tempo_that_the_notes_do_not_follow_is_a_clock(
    events: list[Event], is_clock: bool, tmp_path: Path
) -> None:
    path = write_events(tmp_path / "a.mid", [tempo(117), signature(4, 4)], events, ticks=480)
    piece = Piece.from_midi(path, "tempo_map")
    assert piece.remarks.default_tempo == is_clock
    assert (piece.downbeats_sec is None) == is_clock
    if is_clock:
        with pytest.raises(UserError, match="only the default tempo of 120 BPM, or one"):
            Piece.from_midi(path, default_tempo="reject")


@pytest.mark.parametrize("resolution", [24, 96, 100, 384, 480, 1024])
def test_notated_onsets_lie_on_the_grid(resolution: int) -> None:
    steps = np.concatenate([np.arange(40) / 4, np.arange(40) / 6, np.arange(40) / 8])
    assert is_on_grid(np.rint(steps * resolution).astype(np.int64), resolution)
    if resolution > 100:
        assert not is_on_grid(np.random.default_rng(0).integers(0, 10**6, 400), resolution)


def seconds(beats_sec: np.ndarray) -> np.ndarray:
    beats, tempi = tempo_events(beats_sec)
    tempo_map = TempoMap(np.array(beats) * 480, np.array(tempi), 480)
    return tempo_map.seconds(np.arange(beats_sec.size) * 480)


@given(st.lists(st.floats(0.125, 4), min_size=1, max_size=80), st.integers(1, 400))
def test_beat_times_are_restored_without_drift(intervals: list[float], times: int) -> None:
    beats_sec = 3 + np.concatenate([[0], np.cumsum(np.tile(intervals, times)[:2000])])
    once = seconds(beats_sec)
    assert np.abs(once - (beats_sec - beats_sec[0])).max() <= 1.01e-4
    assert np.diff(once).min() >= 0.125 - 1e-9
    assert np.diff(once).max() <= 4 + 1e-9
    again = seconds(once)
    np.testing.assert_array_equal(np.rint(again * 1e6), np.rint(once * 1e6))


def test_a_constant_tempo_is_one_event() -> None:
    beats, tempi = tempo_events(np.arange(200) * 60 / 63)
    assert (beats, tempi) == ([0], [952_381])
    beats, _ = tempo_events(np.arange(20_000) * 60 / 138)
    assert len(beats) < 300, "corrected now and then"
