"""Copies of MIDI files with other velocities: nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.music.piece import Piece
from tests.music.midi_events import name, note, notes, program, tempo, write_events


def with_other_velocities(source: Path, target: Path, **reading: str) -> tuple[Piece, Piece]:
    """Writes a copy in which each velocity is another one; returns the piece written, and read again."""
    piece = Piece.from_midi(source, **reading)
    changed = piece.notes.copy()
    changed["velocity"] = piece.notes["velocity"] % 127 + 1
    lively = replace(piece, notes=changed)
    lively.to_midi(target, source=source)
    return lively, Piece.from_midi(target, beats=piece.beats_sec, **reading)


def differing_bytes(a: Path, b: Path) -> int:
    """How many bytes of two files of one length differ."""
    first, second = a.read_bytes(), b.read_bytes()
    assert len(first) == len(second)
    return sum(x != y for x, y in zip(first, second, strict=True))


def test_only_the_velocity_bytes_of_the_notes_read_differ(tmp_path: Path) -> None:
    """Running status, a system exclusive message, tempo changes between beats, and notes of four kinds of part."""
    piano = [
        program(3),
        *notes([60, 62, 60, 64]),
        mido.Message("sysex", data=[0x7F, 0x10, 1]),
        *(mido.Message("note_on", note=60, velocity=velocity, time=5) for velocity in (30, 0, 50, 0)),
    ]
    clicks = [name("click"), *notes([60] * 6, ticks=10)]
    strings = [program(40, channel=2), *notes([60, 62, 60, 64], channel=2)]
    drums = notes([60, 62], channel=9)
    source = write_events(tmp_path / "a.mid", [tempo(63), tempo(90, wait=150)], clicks, strings, drums, piano)
    lively, read = with_other_velocities(source, tmp_path / "b.mid")
    assert lively.notes.size == 6
    assert np.array_equal(read.notes, lively.notes)
    assert differing_bytes(source, tmp_path / "b.mid") == 6


def test_notes_of_all_programs_are_found_where_these_were_read(tmp_path: Path) -> None:
    strings = [program(40), *notes([60, 62, 60, 64])]
    source = write_events(tmp_path / "a.mid", strings, notes([60, 61]))
    lively, read = with_other_velocities(source, tmp_path / "b.mid", programs="all")
    assert np.array_equal(read.notes, lively.notes)
    assert differing_bytes(source, tmp_path / "b.mid") == 6


def test_doubled_notes_keep_their_places(tmp_path: Path) -> None:
    doubled = [mido.Message("note_on", note=60, velocity=v) for v in (20, 80, 20)]
    ends = [mido.Message("note_off", note=60, time=40) for _ in range(3)]
    source = write_events(tmp_path / "a.mid", [*doubled, *ends], note(60, 90, velocity=70))
    piece = Piece.from_midi(source)
    assert piece.notes.size == 4
    piece.to_midi(tmp_path / "same.mid", source=source)
    assert differing_bytes(source, tmp_path / "same.mid") == 0
    with_other_velocities(source, tmp_path / "b.mid")
    assert differing_bytes(source, tmp_path / "b.mid") == 4


def test_another_file_is_refused(tmp_path: Path) -> None:
    source = write_events(tmp_path / "a.mid", notes([60, 62]))
    other = write_events(tmp_path / "other.mid", notes([60, 63]))
    with pytest.raises(UserError, match=r"other\.mid: 1 of 2 notes of the piece are not in this file"):
        Piece.from_midi(source).to_midi(tmp_path / "b.mid", source=other)
    assert not (tmp_path / "b.mid").exists()


@pytest.mark.parametrize("folder", ["pop909", "asap", "cases"])
def test_real_files_change_in_the_velocity_bytes_only(folder: str, shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / folder).rglob("*.mid"))
    compared = 0
    for path in paths[:: max(len(paths) // 20, 1)][:20]:
        try:
            piece = Piece.from_midi(path)
        except UserError:
            continue
        compared += 1
        lively, read = with_other_velocities(path, tmp_path / "b.mid")
        assert differing_bytes(path, tmp_path / "b.mid") == piece.notes.size
        assert sorted(read.notes.tolist()) == sorted(lively.notes.tolist())
    assert compared > 5
