"""Grids of beats and bars: silence at the start, beats of another file, damaged times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.music.grid import MAX_SILENT_BEATS
from pianolm.music.piece import Piece
from tests.music.midi_events import name, note, notes, signature, tempo, write_events


@pytest.mark.parametrize("silent", [MAX_SILENT_BEATS, MAX_SILENT_BEATS + 1, 1200])
def test_long_silence_at_the_start_is_cut_and_reported(silent: int, tmp_path: Path) -> None:
    late = [*note(60, 50, wait=100 * silent), *note(62, 50, wait=50)]
    path = write_events(tmp_path / "a.mid", [tempo(120)], late)
    piece = Piece.from_midi(path)
    is_cut = silent > MAX_SILENT_BEATS
    assert piece.n_beats == (2 if is_cut else silent + 2)
    assert piece.notes["onset_sec"][0] == silent / 2, "times stay those of the file"
    assert piece.remarks.silent_beats_cut == (silent if is_cut else 0)
    assert piece.remarks.sentences() == [f"{silent} silent beat(s) before the first note cut"] * is_cut


def test_silence_is_cut_to_the_bar_of_the_first_note(tmp_path: Path) -> None:
    late = [*note(60, 50, wait=100 * 203), *note(62, 50, wait=450)]
    piece = Piece.from_midi(write_events(tmp_path / "a.mid", [tempo(120), signature(4, 4)], late))
    assert piece.remarks.silent_beats_cut == 200
    assert piece.bar_starts.tolist() == [0, 4, 8]
    assert piece.beats_sec[0] == 100.0


def test_bars_of_one_beat_are_no_bars(tmp_path: Path) -> None:
    """Files that say 1/4 throughout mean that the metre is unknown; a downbeat on every beat would be wrong."""
    piece = Piece.from_midi(
        write_events(tmp_path / "a.mid", [tempo(90), signature(1, 4)], notes([60, 62] * 8))
    )
    assert piece.bar_starts.size == 0
    assert "no bars, as the time signature has one beat" in piece.remarks.sentences()[0]
    waltz = Piece.from_midi(
        write_events(tmp_path / "b.mid", [tempo(90), signature(3, 4)], notes([60, 62] * 8))
    )
    assert waltz.bar_starts.size > 1


def test_beats_of_another_unit_or_file_are_rejected(tmp_path: Path) -> None:
    path = write_events(tmp_path / "a.mid", [tempo(120)], notes([60, 62] * 20))
    assert Piece.from_midi(path, np.arange(80) * 0.5).n_beats == 79
    with pytest.raises(UserError, match=r"beats: \d+ of \d+ beats lie outside the notes.*0 to 19.75 s"):
        Piece.from_midi(path, np.arange(90) * 0.5)
    (tmp_path / "a_annotations.txt").write_text("".join(f"{500 * i}.0\t{500 * i}.0\tb\n" for i in range(40)))
    with pytest.raises(UserError, match=r"a_annotations\.txt: .*lie outside the notes.*in seconds"):
        Piece.from_midi(path)


@pytest.mark.parametrize("time", ["1e300", "1e12", "inf", "-inf", "-1e300", "1e308", "nan", "99999999"])
def test_damaged_beat_times_give_one_sentence(time: str, tmp_path: Path) -> None:
    path = write_events(tmp_path / "a.mid", notes([60, 62]))
    (tmp_path / "a.beats.txt").write_text(f"0.0\n0.5\n1.0\n{time}\n")
    with pytest.raises(UserError, match=r"a\.beats\.txt: ") as error:
        Piece.from_midi(path)
    assert "\n" not in str(error.value)
    if time not in ("inf", "-inf", "nan"):
        with pytest.raises(UserError, match=r"at most 100000|lie outside"):
            Piece.from_midi(path, [0.0, 0.5, float(time)])


def test_damaged_note_times_give_one_sentence(tmp_path: Path) -> None:
    far = [*note(60, 10), *note(62, 10, wait=2**28 - 1)]
    for beats in ("tempo_map", [0.0, 0.5]):
        with pytest.raises(UserError, match="at most 100000"):
            Piece.from_midi(write_events(tmp_path / "a.mid", [tempo(20)], far, ticks=24), beats)


def test_a_beat_track_that_does_not_fit_is_rejected(tmp_path: Path) -> None:
    clicks = [name("click"), *notes([37] * 40, ticks=5)]
    path = write_events(tmp_path / "a.mid", notes([60, 62, 64]), clicks)
    with pytest.raises(UserError, match="lie outside the notes"):
        Piece.from_midi(path)
