"""Statistics of pieces made by hand, whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pianolm.evaluation.music_statistics import (
    STATISTICS,
    bar_likeness,
    key_name,
    key_of,
    share_with_bass,
    statistics,
)
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, FrameNotes, frames_to_cells
from pianolm.music.piece import Piece

C_MAJOR = (0, "major")


def melody(*pitches: int, start: int = 0, step: int = 12) -> FrameNotes:
    """One note after the other, sixteenths by default."""
    rows = [(start + i * step, start + (i + 1) * step, p, 60) for i, p in enumerate(pitches)]
    return np.array(rows, FRAME_NOTE_DTYPE)


def piece_of(*parts: FrameNotes, beats: int, beat_sec: np.ndarray | float = 0.5) -> Piece:
    notes = np.sort(np.concatenate(parts), order=["pitch", "onset"])
    beats_sec = np.concatenate([[0], np.cumsum(np.broadcast_to(beat_sec, beats))])
    return Piece.from_cells(frames_to_cells(notes, beats), beats_sec)


@pytest.mark.parametrize("tonic", [0, 5, 11])
def test_scales_that_end_on_their_tonic_have_its_key(tonic: int) -> None:
    major = [60 + tonic + step for step in (0, 2, 4, 5, 7, 9, 11, 12, 7, 4, 0)]
    minor = [60 + tonic + step for step in (0, 2, 3, 5, 7, 8, 10, 12, 7, 3, 0)]
    assert key_of(melody(*major)) == (tonic, "major")
    assert key_of(melody(*minor)) == (tonic, "minor")


def test_keys_have_names() -> None:
    assert (key_name((1, "minor")), key_name((10, "major"))) == ("C# minor", "Bb major")


def test_a_repeated_bar_in_key_on_a_bass() -> None:
    bar = (36, 60, 64, 67)
    piece = piece_of(melody(*bar, step=FRAMES), melody(*bar, start=4 * FRAMES, step=FRAMES), beats=8)
    found = statistics(piece, 4, 8, C_MAJOR, 4)
    assert list(found) == list(STATISTICS)
    assert found == {
        "bar_likeness": 1,
        "in_key": 100,
        "bass_on_downbeat": 100,
        "longer_than_a_bar": 0,
        "blips": 0,
        "tempo_sd_bpm": 0,
        "notes_per_beat": 1,
    }


def test_notes_out_of_key_too_long_and_too_short_in_a_wavering_tempo() -> None:
    long = np.array([(4 * FRAMES, 9 * FRAMES, 61, 60), (4 * FRAMES, 8 * FRAMES, 62, 60)], FRAME_NOTE_DTYPE)
    short = np.array(
        [(5 * FRAMES, 5 * FRAMES + 5, 60, 60), (6 * FRAMES, 6 * FRAMES + 6, 65, 60)], FRAME_NOTE_DTYPE
    )
    beat_sec = np.array([0.5] * 4 + [0.5, 0.6] * 3)
    piece = piece_of(melody(60, 64, 67, 72, step=FRAMES), long, short, beats=10, beat_sec=beat_sec)
    found = statistics(piece, 4, 8, C_MAJOR, 4)
    assert found["in_key"] == 75
    assert found["longer_than_a_bar"] == 1, "four beats are not longer than a bar"
    assert found["blips"] == 25, "an eighth of a beat is none"
    assert found["bass_on_downbeat"] == 0
    assert found["bar_likeness"] == 0
    assert found["tempo_sd_bpm"] == pytest.approx(10)
    assert found["notes_per_beat"] == 1


def test_likeness_is_that_of_the_most_similar_earlier_bar() -> None:
    bars = [(60, 64, 67, 72), (50, 52, 53, 55), (60, 64, 67, 71)]
    notes = np.concatenate([melody(*bar, start=i * 4 * FRAMES, step=FRAMES) for i, bar in enumerate(bars)])
    assert bar_likeness(notes, 8, 12, 4) == pytest.approx(3 / 5), "three pairs of five are in both"
    assert bar_likeness(notes, 4, 12, 4) == pytest.approx(3 / 10)
    moved = notes.copy()
    moved["onset"][-4:] += 2
    assert bar_likeness(moved, 8, 12, 4) == pytest.approx(3 / 5), "sixteenths are rounded"


def test_bars_of_three_beats_count_from_beat_0_and_only_complete_ones() -> None:
    notes = melody(*[40, 60, 60] * 5, 40, step=FRAMES)
    assert share_with_bass(notes, 4, 16, 3) == 1, "bars on 6, 9 and 12; the one on 15 is not complete"
    assert share_with_bass(notes, 4, 16, 4) == pytest.approx(1 / 3), "bars on 4, 8 and 12"
    assert bar_likeness(notes, 4, 16, 3) == 1


def test_what_cannot_be_told_is_nan() -> None:
    piece = piece_of(melody(60, 64, 67, 72, step=FRAMES), beats=8)
    silent = statistics(piece, 4, 8, C_MAJOR, 4)
    assert (silent["notes_per_beat"], silent["longer_than_a_bar"], silent["bass_on_downbeat"]) == (0, 0, 0)
    assert all(math.isnan(silent[name]) for name in ("bar_likeness", "in_key", "blips"))
    nothing = statistics(piece, 8, 8, C_MAJOR, 4)
    assert all(math.isnan(value) for value in nothing.values())
