"""Figures of experiments/continuations and its prompts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pianolm.music.beats import BeatAnnotation
from pianolm.music.cells import FRAME_NOTE_DTYPE, FRAMES, frames_to_cells
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from tests.experiment import load


@pytest.fixture
def figures() -> ModuleType:
    return load("continuations/figures.py")


@pytest.fixture
def songs() -> ModuleType:
    return load("continuations/songs.py")


def melody(*pitches: int, start: int = 0, step: int = 12, shift: int = 0) -> np.ndarray:
    """Sixteenths one after the other."""
    rows = [(start + i * step + shift, start + (i + 1) * step, p, 60 + i % 5) for i, p in enumerate(pitches)]
    return np.array(rows, FRAME_NOTE_DTYPE)


def piece_of(notes: np.ndarray) -> Piece:
    cells = frames_to_cells(np.sort(notes, order=["pitch", "onset"]), 8)
    return Piece.from_cells(cells, np.arange(9) * 0.5)


def test_figures_of_new_beats(figures: ModuleType) -> None:
    bar = melody(36, 60, 64, 67, step=FRAMES)
    notes = np.concatenate([bar, melody(36, 60, 64, 67, start=4 * FRAMES, step=FRAMES)])
    found = figures.figures(piece_of(notes), 4, 8, (0, "major"))
    assert (found["notes"], found["notes_per_beat"], found["polyphony"]) == (4, 1.0, 1.0)
    assert (found["pitch_low"], found["pitch_high"], found["pitch_class_bits"]) == (36, 67, 1.5)
    assert (found["in_key"], found["on_eighths"], found["bars_with_bass"], found["bar_likeness"]) == (
        1,
        1,
        1,
        1,
    )
    off = np.concatenate([bar, melody(61, 63, start=4 * FRAMES, step=FRAMES, shift=12)])
    found = figures.figures(piece_of(off), 4, 8, (0, "major"))
    assert (found["on_eighths"], found["on_sixteenths"], found["in_key"], found["bar_likeness"]) == (
        0,
        1,
        0,
        0,
    )


def test_an_opening_begins_with_the_first_bar_once_there_is_music(songs: ModuleType, tmp_path: Path) -> None:
    onset = np.arange(4.5, 30, 0.5)
    notes = make_notes(onset, onset + 1.0, np.full(onset.size, 60), np.full(onset.size, 70))
    song = Piece.from_notes(notes, BeatAnnotation(np.arange(40) * 0.5, np.arange(40) % 4 == 0))
    piece = songs.opening(song, 12)
    assert piece.n_beats == 12
    assert piece.notes.size == 12, "from beat 12: the bar of beats 8 to 11 has its first note on beat 9"
    assert piece.notes["onset_sec"][0] == pytest.approx(0)
    assert piece.notes["offset_sec"].max() == pytest.approx(6.0)
    songs.save(piece, tmp_path / "a.mid")
    back = Piece.from_midi(tmp_path / "a.mid")
    assert back.n_beats == 12
    assert back.downbeats_sec == pytest.approx([0, 2, 4, 6])
    assert np.array_equal(back.frame_notes["onset"], piece.frame_notes["onset"])
