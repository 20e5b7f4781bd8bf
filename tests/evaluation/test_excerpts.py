"""Where excerpts begin and end, and the length of their bars."""

from __future__ import annotations

import numpy as np

from pianolm.evaluation.excerpts import bar_length, cut, opening
from pianolm.music.beats import FRAMES, BeatAnnotation
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

BEAT_SEC = 0.5


def song(first_beat: float, last_beat: float, bar: int | None = 4, length: float = 2.0) -> Piece:
    """A note on each beat of a grid of 40 beats, `length` beats long."""
    onset = np.arange(first_beat, last_beat) * BEAT_SEC
    notes = make_notes(onset, onset + length * BEAT_SEC, np.arange(onset.size) + 40, np.full(onset.size, 70))
    downbeat = None if bar is None else np.arange(40) % bar == 0
    return Piece.from_notes(notes, BeatAnnotation(np.arange(40) * BEAT_SEC, downbeat))


def test_an_opening_begins_with_the_first_bar_once_there_is_music() -> None:
    piece = opening(song(7, 36), 12)
    assert piece is not None
    assert piece.n_beats == 12
    assert piece.beats_sec[0] == 0
    assert piece.notes["pitch"].tolist() == list(range(41, 53)), "the upbeat on beat 7 is left out"
    assert piece.notes["onset_sec"][0] == 0
    assert piece.frame_notes["end"].max() == 12 * FRAMES, "what sounds on ends with the last beat"
    assert piece.bar_starts.tolist() == [0, 4, 8, 12]


def test_a_first_bar_that_starts_with_a_note_is_kept() -> None:
    piece = opening(song(8, 36), 8)
    assert piece is not None
    assert piece.notes["pitch"][0] == 40


def test_without_bars_an_opening_begins_with_the_first_note() -> None:
    piece = opening(song(7, 36, bar=None), 8)
    assert piece is not None
    assert piece.notes["pitch"][0] == 40
    assert bar_length(piece, 8) is None


def test_pieces_that_are_too_short_or_silent_have_no_opening() -> None:
    piece = song(8, 36)
    assert opening(piece, piece.n_beats - 8) is not None
    assert opening(piece, piece.n_beats - 7) is None
    assert opening(cut(song(8, 36), 0, 8), 4) is None


def test_a_note_struck_just_before_its_beat_belongs_to_the_beat_of_its_frame() -> None:
    piece = song(8, 36)
    piece.notes["onset_sec"][0] -= 0.004
    found = opening(piece, 8)
    assert found is not None
    assert found.notes["pitch"][0] == 40


def test_the_bar_length_is_the_most_frequent_one() -> None:
    onset = np.arange(0, 30) * BEAT_SEC
    notes = make_notes(onset, onset + 0.2, np.full(30, 60), np.full(30, 70))
    downbeat = np.isin(np.arange(31), [0, 3, 6, 8, 11, 14, 16, 18, 20, 22, 24, 26])
    piece = Piece.from_notes(notes, BeatAnnotation(np.arange(31) * BEAT_SEC, downbeat))
    assert bar_length(piece, 14) == 3
    assert bar_length(piece, 26) == 2
    assert bar_length(piece, 2) is None
