"""The marker that describes a grid in a written file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import symusic
from hypothesis import given
from hypothesis import strategies as st

from pianolm.music.beats import BeatAnnotation
from pianolm.music.grid_mark import GridMark
from pianolm.music.midi import TICKS_PER_BEAT
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.integers(40, 50))
def test_a_mark_restores_bars_from_its_text(starts: set[int], implied: set[int], beats: int) -> None:
    bars = np.array(sorted(starts), np.intp)
    implied_bars = np.array(sorted(starts | implied), np.intp)
    mark = GridMark.find(["other text", str(GridMark.of_bars(beats, bars, implied_bars))])
    assert mark is not None
    assert mark.beats == beats
    np.testing.assert_array_equal(mark.bar_starts(implied_bars), bars)


@pytest.mark.parametrize(
    "text", ["", "grid", "pianolm grid: 0 beats", "pianolm grid: 999999 beats", "pianolm grid: x"]
)
def test_other_markers_are_no_marks(text: str) -> None:
    assert GridMark.find([text]) is None


def markers(path: Path) -> list[str]:
    return [marker.text for marker in symusic.Score(str(path)).markers]


def test_a_mark_is_written_only_where_it_is_needed(tmp_path: Path) -> None:
    notes = make_notes(np.arange(8) * 0.4, np.arange(8) * 0.4 + 0.3, [60] * 8, np.arange(8) + 50)
    beats_sec = np.arange(9) * 0.4
    plain = Piece.from_notes(notes, beats_sec)
    whole = Piece.from_notes(notes, BeatAnnotation(beats_sec, np.arange(9) % 4 == 0))
    partly = Piece.from_notes(notes, BeatAnnotation(beats_sec, np.isin(np.arange(9), [2, 5])))
    longer = Piece.from_notes(notes, np.arange(20) * 0.4)
    pieces = {
        plain: [],
        whole: [],
        partly: ["pianolm grid: 8 beats, bars 2-5"],
        longer: ["pianolm grid: 19 beats"],
    }
    for piece, expected in pieces.items():
        piece.to_midi(tmp_path / "a.mid")
        assert markers(tmp_path / "a.mid") == expected


def test_the_mark_of_an_edited_file_is_ignored(tmp_path: Path) -> None:
    notes = make_notes(np.arange(8) * 0.4, np.arange(8) * 0.4 + 0.3, [60] * 8, [64] * 8)
    Piece.from_notes(notes, np.arange(20) * 0.4).to_midi(tmp_path / "a.mid")
    score = symusic.Score(str(tmp_path / "a.mid"))
    score.tracks[0].notes.append(symusic.Note(60 * TICKS_PER_BEAT, 480, 60, 64))
    score.dump_midi(str(tmp_path / "a.mid"))
    assert Piece.from_midi(tmp_path / "a.mid").n_beats == 61
