"""Pieces whose beats are estimated from their notes, and files that keep their clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.music.piece import Piece
from pianolm.music.tempo_map import share_on_clock
from tests.music.midi_events import Event, name, note, tempo, write_events
from tests.music.test_beat_estimation import BEAT_SEC
from tests.music.toy_tracker import bass_tracker

TICKS = 480
SEC = 2 * TICKS
"""Ticks of a second at 120 BPM."""


def waltz(beat_ticks: float, n_beats: int = 40, jitter: int = 0) -> list[Event]:
    """A bass note a beat, long on every third beat, with a higher note after each; no tempo."""
    rng = np.random.default_rng(0)
    events: list[Event] = []
    now = 0
    for beat in range(n_beats):
        for pitch, place, ticks in ((40, beat, 60), (60, beat + 0.5, 60)):
            start = max(round(place * beat_ticks) + int(rng.integers(-jitter, jitter + 1)), now)
            events += note(pitch, ticks, wait=start - now)
            now = start + ticks
    return events


@pytest.fixture
def tracker(tmp_path: Path) -> Path:
    directory = tmp_path / "tracker"
    directory.mkdir()
    bass_tracker().save(directory)
    return directory


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A performance against the clock: no tempo, and beats that are not half a second long."""
    return write_events(tmp_path / "recording.mid", waltz(BEAT_SEC * SEC, jitter=3), ticks=TICKS)


def test_beats_are_estimated_where_the_file_has_only_a_clock(recording: Path, tracker: Path) -> None:
    piece = Piece.from_midi(recording, default_tempo="estimate", tracker=tracker)
    bass_sec = piece.notes["onset_sec"][piece.notes["pitch"] == 40]
    np.testing.assert_allclose(piece.beats_sec[: bass_sec.size], bass_sec, atol=1e-6)
    assert piece.remarks.beat_confidence is not None
    assert piece.remarks.beat_confidence > 0.5
    assert not piece.remarks.default_tempo
    assert piece.remarks.sentences() == [
        f"beats estimated from the notes, confidence {piece.remarks.beat_confidence:.2f}"
    ]


def test_a_quantised_song_without_a_tempo_keeps_the_clock(tmp_path: Path, tracker: Path) -> None:
    song = write_events(tmp_path / "song.mid", waltz(TICKS), ticks=TICKS)
    piece = Piece.from_midi(song, default_tempo="estimate", tracker=tracker)
    used = Piece.from_midi(song, default_tempo="use")
    np.testing.assert_array_equal(piece.beats_sec, used.beats_sec)
    assert piece.remarks.clock_kept
    assert not piece.remarks.default_tempo
    assert piece.remarks.beat_confidence is None
    assert used.remarks.default_tempo


def test_any_stated_tempo_is_kept(tmp_path: Path, tracker: Path) -> None:
    path = write_events(tmp_path / "a.mid", [tempo(90), *waltz(TICKS + 37)], ticks=TICKS)
    piece = Piece.from_midi(path, default_tempo="estimate", tracker=tracker)
    np.testing.assert_allclose(np.diff(piece.beats_sec), 60 / 90, atol=1e-5)
    assert piece.remarks.sentences() == []


def test_a_beat_track_and_a_beat_file_come_before_an_estimate(
    recording: Path, tmp_path: Path, tracker: Path
) -> None:
    clicks = [name("click"), *(e for i in range(30) for e in note(37, 10, wait=SEC // 2 - 10 if i else 0))]
    path = write_events(tmp_path / "b.mid", waltz(BEAT_SEC * SEC, jitter=3), clicks, ticks=TICKS)
    by_track = Piece.from_midi(path, default_tempo="estimate", tracker=tracker)
    assert by_track.remarks.beat_confidence is None
    np.testing.assert_allclose(np.diff(by_track.beats_sec), 0.5, atol=1e-6)
    estimated = Piece.from_midi(path, "estimate", tracker=tracker)
    assert estimated.remarks.beat_confidence is not None
    recording.with_name("recording.beats.txt").write_text("".join(f"{0.7 * i}\n" for i in range(30)))
    by_file = Piece.from_midi(recording, default_tempo="estimate", tracker=tracker)
    np.testing.assert_allclose(np.diff(by_file.beats_sec), 0.7, atol=1e-6)


def test_the_clock_that_is_asked_for_is_taken(recording: Path, tracker: Path) -> None:
    piece = Piece.from_midi(recording, "tempo_map", default_tempo="estimate", tracker=tracker)
    np.testing.assert_allclose(np.diff(piece.beats_sec), 0.5, atol=1e-6)
    assert piece.remarks.default_tempo


def test_estimating_without_a_tracker_says_what_to_do(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train one with stage=beats"):
        Piece.from_midi(recording, "estimate", tracker=tmp_path / "none")


@pytest.mark.parametrize(("step", "expected"), [(120, 1.0), (160, 1.0), (480, 1.0), (97, 0.3)])
def test_sixteenths_and_triplets_lie_on_the_clock(step: int, expected: float) -> None:
    share = share_on_clock(np.arange(1000) * step, 480)
    assert share == 1 if expected == 1 else share < expected


def test_the_clock_holds_at_any_resolution() -> None:
    assert share_on_clock(np.arange(100) * 6, 24) == 1
    assert share_on_clock(np.arange(0), 480) == 1
    onsets = np.cumsum(np.random.default_rng(0).integers(50, 400, 5000))
    assert 0.1 < share_on_clock(onsets, 480) < 0.25  # by chance: six of 48 places
