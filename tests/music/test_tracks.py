"""Which tracks of a file are read as piano music."""

from __future__ import annotations

from pathlib import Path

import mido
import pytest

from pianolm.errors import UserError
from pianolm.music.midi import read_midi
from pianolm.music.piece import Piece
from pianolm.music.tracks import check_programs
from tests.music.midi_events import Event, name, note, notes, program, tempo, write_events

PIANO = [tempo(100), *notes([60, 62, 64, 65])]
STRINGS = [program(48, 1), *notes([72, 73], channel=1)]
BASS = [program(33, 2), *notes([36], channel=2)]
CLICKS = notes([37, 38, 38, 38, 37, 38, 38, 38], ticks=10)


def pitches(path: Path, **options: object) -> list[int]:
    return sorted(read_midi(path, **options).notes["pitch"].tolist())  # type: ignore[arg-type]  # options by name


def test_piano_programs_are_read_and_others_counted(tmp_path: Path) -> None:
    path = write_events(tmp_path / "band.mid", PIANO, STRINGS, BASS, [program(7, 3), *notes([50], channel=3)])
    assert pitches(path) == [50, 60, 62, 64, 65]
    remarks = Piece.from_midi(path).remarks
    assert (remarks.other_notes, remarks.other_programs) == (3, (33, 48))
    assert remarks.sentences() == ["3 note(s) of other instruments left out (programs 33, 48)"]


def test_programs_are_chosen_by_an_option(tmp_path: Path) -> None:
    path = write_events(tmp_path / "band.mid", PIANO, STRINGS, BASS, notes([40], channel=9))
    assert pitches(path, programs="all") == [36, 60, 62, 64, 65, 72, 73]
    assert pitches(path, programs=[48, 33]) == [36, 72, 73]
    assert pitches(path, programs=48) == [72, 73]
    assert Piece.from_midi(path, programs="all").remarks.drum_notes == 1


@pytest.mark.parametrize("programs", ["strings", [], [128], [-1], ["piano"], [1.5]])
def test_other_values_of_programs_give_one_sentence(programs: object) -> None:
    with pytest.raises(UserError, match=r"programs=.*expected piano, all, or a list"):
        check_programs(programs)  # type: ignore[arg-type]  # wrong on purpose


def test_a_program_change_within_a_track_splits_it(tmp_path: Path) -> None:
    events = [program(0), *notes([60, 62]), program(40), *notes([70, 72]), program(1), *notes([64])]
    assert pitches(write_events(tmp_path / "a.mid", events)) == [60, 62, 64]


def test_a_file_without_piano_is_rejected_with_that_reason(tmp_path: Path) -> None:
    path = write_events(tmp_path / "a.mid", STRINGS, BASS)
    with pytest.raises(
        UserError, match=r"no piano found: .*33 \(1 notes\), 48 \(2 notes\).*data.programs=all"
    ):
        Piece.from_midi(path)
    assert Piece.from_midi(path, programs="all").notes.size == 3
    with pytest.raises(UserError, match="holds no notes but 2 of drums"):
        Piece.from_midi(write_events(tmp_path / "b.mid", notes([40, 41], channel=9)))


@pytest.mark.parametrize(
    ("track", "is_drums"),
    [
        ([name("Drum Kit"), *notes([35, 38, 42])], True),
        ([name("percussion"), *notes([27, 87])], True),
        ([name("My drums 2"), *notes([36, 38], ticks=50)], True),
        ([name("drums"), *notes([36, 38], ticks=51)], False),
        ([name("drums"), *notes([26, 38])], False),
        ([name("drums"), *notes([36, 88])], False),
        ([name("Kitty's song"), *notes([36, 38])], False),
        ([name("Piano"), *notes([36, 38], channel=9)], True),
    ],
)
def test_drums_are_channel_10_or_a_name_with_fitting_notes(
    track: list[Event], is_drums: bool, tmp_path: Path
) -> None:
    content = read_midi(write_events(tmp_path / "a.mid", PIANO, track))
    count = sum(message.type == "note_on" for message in track)
    assert content.notes.size == 4 + (0 if is_drums else count)
    assert content.remarks.drum_notes == (count if is_drums else 0)


@pytest.mark.parametrize(
    ("track", "is_beats"),
    [
        (CLICKS, True),
        ([program(115), *CLICKS], True),
        (notes([37] * 6, ticks=50), True),
        (notes([37, 37], ticks=5), True),
        ([m.copy(channel=9) for m in CLICKS], True),
        (notes([60, 62, 64, 65, 67], ticks=10), False),  # three pitches
        (notes([37] * 6, ticks=90), False),  # long notes
        (note(37, 10), False),
        ([*note(37, 5), *note(37, 5, wait=15), *note(37, 5, wait=95), *note(37, 5, wait=15)], False),
    ],
)
def test_a_track_called_click_gives_beats_if_it_can(
    track: list[Event], is_beats: bool, tmp_path: Path
) -> None:
    path = write_events(tmp_path / "a.mid", PIANO, [name(" Click "), *track])
    content = read_midi(path)
    count = sum(message.type == "note_on" for message in track)
    assert (content.track_beats_sec is not None) == is_beats
    assert content.notes.size == 4 + (0 if is_beats else count)
    if is_beats:
        assert content.remarks.beat_track_notes == count
        assert "beats taken from the track ' Click '" in Piece.from_midi(path).remarks.sentences()


def test_the_first_beat_track_wins(tmp_path: Path) -> None:
    beats, clicks = [name("beats"), *notes([37] * 4, ticks=10, step=200)], [name("click"), *CLICKS]
    melody = [name("Metronome"), *notes([60, 64, 67])]
    content = read_midi(write_events(tmp_path / "a.mid", PIANO, melody, beats, clicks))
    assert content.track_beats_sec is not None
    assert content.track_beats_sec.tolist() == [0.0, 1.2, 2.4, 3.6]
    assert content.remarks.beat_track == "beats"
    assert content.remarks.beat_track_notes == 12
    assert sorted(content.notes["pitch"].tolist()) == [60, 60, 62, 64, 64, 65, 67]


def test_names_in_other_encodings_are_read(tmp_path: Path) -> None:
    path = write_events(tmp_path / "a.mid", [name("Klavier xx"), *notes([60, 62])])
    path.write_bytes(path.read_bytes().replace(b"xx", b"\xe4\xff"))
    assert pitches(path) == [60, 62]


def test_events_of_other_kinds_are_ignored(tmp_path: Path) -> None:
    events = [mido.Message("pitchwheel", pitch=100), mido.Message("sysex", data=(1, 2, 3)), *notes([60])]
    assert pitches(write_events(tmp_path / "a.mid", events)) == [60]
