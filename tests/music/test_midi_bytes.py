"""Headers of MIDI files, and notes without an end."""

from __future__ import annotations

import os
from pathlib import Path

import mido
import pytest

from pianolm.errors import UserError
from pianolm.music.midi import read_midi
from pianolm.music.midi_bytes import end_all_notes, read_midi_bytes
from pianolm.music.midi_events import track_chunks
from pianolm.music.piece import Piece
from tests.music.midi_events import control, note, notes, write_events


def with_header(path: Path, header: bytes) -> Path:
    """Replaces the header of a file of two notes, chunk name and length included."""
    content = write_events(path, notes([60, 62])).read_bytes()
    path.write_bytes(header + content[14:])
    return path


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"MThd" + bytes([0, 0, 0, 6, 0, 2, 0, 1, 0, 96]), "format 2"),
        (b"MThd" + bytes([0, 0, 0, 6, 0, 9, 0, 1, 0, 96]), "format 9"),
        (b"MThd" + bytes([0, 0, 0, 6, 0, 1, 0, 1, 0xE7, 40]), "SMPTE time division .* is not supported"),
        (b"MThd" + bytes([0, 0, 0, 6, 0, 1, 0, 1, 0, 0]), "resolution of 0"),
        (b"MThd" + bytes([0, 0, 0, 4, 0, 1, 0, 1]), "no MThd header"),
    ],
)
def test_an_unsupported_header_gives_one_sentence(header: bytes, found: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=found) as error:
        Piece.from_midi(with_header(tmp_path / "a.mid", header))
    assert "\n" not in str(error.value)


def test_a_longer_header_is_read(tmp_path: Path) -> None:
    header = b"MThd" + bytes([0, 0, 0, 9, 0, 1, 0, 1, 0, 100, 1, 2, 3])
    assert read_midi(with_header(tmp_path / "a.mid", header)).notes["pitch"].tolist() == [60, 62]


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mid")
    (tmp_path / "link.mid").symlink_to("link.mid")
    for path in (tmp_path / "pipe.mid", tmp_path / "link.mid", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_midi_bytes(path)


def test_a_note_without_end_is_held_to_the_end_of_its_track(tmp_path: Path) -> None:
    held = [mido.Message("note_on", note=72, time=50, channel=3)]
    end = [mido.MetaMessage("end_of_track", time=250)]
    other = note(40, 900)
    content = read_midi(write_events(tmp_path / "a.mid", notes([60, 62]) + held + end, other))
    assert content.remarks.unended_notes == 1
    assert content.notes["pitch"].tolist() == [40, 60, 62, 72]
    assert content.notes["offset_sec"].tolist() == [4.5, 0.25, 0.75, 2.25]
    assert content.end_tick == 900


def test_an_all_notes_off_event_ends_notes_without_end(tmp_path: Path) -> None:
    on = [mido.Message("note_on", note=pitch) for pitch in (60, 64)]
    again = [mido.Message("note_on", note=60, time=20)]
    events = [*on, control(123, 0, wait=100), *again, control(120, 0, wait=30), *note(48, 500)]
    content = read_midi(write_events(tmp_path / "a.mid", events))
    assert content.notes["offset_sec"].tolist() == [0.5, 0.5, 0.75, 3.25]
    assert content.remarks.unended_notes == 3


def test_many_notes_of_one_pitch_without_end_are_kept(tmp_path: Path) -> None:
    on = [mido.Message("note_on", note=60, time=100) for _ in range(40)]
    piece = Piece.from_midi(write_events(tmp_path / "a.mid", on))
    assert piece.remarks.unended_notes == piece.notes.size == piece.frame_notes.size == 40


def test_a_note_on_at_the_end_of_its_track_is_kept(tmp_path: Path) -> None:
    piece = Piece.from_midi(
        write_events(tmp_path / "a.mid", [*note(60, 100), mido.Message("note_on", note=61)])
    )
    assert piece.frame_notes.tolist() == [(0, 48, 60, 64), (48, 49, 61, 64)]
    assert piece.remarks.sentences()[-1] == "1 note(s) without an end held to the end of their track"


def chunks_of(content: bytes) -> list[bytes]:
    return [content[chunk] for chunk in track_chunks(content)]


def with_tracks(path: Path, announced: int, *chunks: bytes) -> Path:
    """A file of these chunks whose header announces another number of tracks."""
    path.write_bytes(b"MThd" + bytes([0, 0, 0, 6, 0, 1, *announced.to_bytes(2), 0, 100]) + b"".join(chunks))
    return path


@pytest.mark.parametrize(("announced", "missing"), [(0, 0), (1, 0), (3, 0), (5, 2), (65535, 65532)])
def test_all_tracks_are_read_whatever_the_header_announces(
    announced: int, missing: int, tmp_path: Path
) -> None:
    tracks = [notes([pitch]) for pitch in (60, 62, 64)]
    chunks = chunks_of(write_events(tmp_path / "a.mid", *tracks).read_bytes())
    content = read_midi(with_tracks(tmp_path / "b.mid", announced, *chunks))
    assert content.notes["pitch"].tolist() == [60, 62, 64]
    assert content.remarks.missing_tracks == missing
    assert bool(content.remarks.sentences()) == bool(missing)


def chunk(events: bytes) -> bytes:
    return b"MTrk" + len(events).to_bytes(4) + events


ON, OFF, END = b"\x00\x90\x3c\x40", b"\x64\x80\x3c\x00", b"\x00\xff\x2f\x00"


@pytest.mark.parametrize(
    ("events", "ends", "cut"),
    [
        (ON + OFF + END, [100], 0),
        (ON + OFF, [100], 1),
        (ON + OFF + END + ON + OFF + END, [100], 1),
        (ON + b"\x64\xff\x2f\x00" + OFF + END, [100], 1),
        (ON + b"\x64\xff\x01\x03\xff\x2f\x00" + OFF + END, [200], 0),  # a text that looks like an end
        (ON + b"\x64\xff\x01\x00", [100], 1),  # held to the last event
    ],
)
def test_a_track_that_is_cut_short_is_said(events: bytes, ends: list[int], cut: int, tmp_path: Path) -> None:
    content = read_midi(with_tracks(tmp_path / "a.mid", 1, chunk(events)))
    assert content.tempo.ticks_per_quarter == 100
    assert (content.notes["offset_sec"] * 200).tolist() == ends
    assert content.remarks.cut_tracks == cut
    assert any("may lack notes" in sentence for sentence in content.remarks.sentences()) == bool(cut)


@pytest.mark.parametrize(
    "data", [b"\x01\x02\x03", b"\xff\x2f\x00", b"\x90\x40\x40", b"\xbf\xbf", b"", b"\xf7"]
)
@pytest.mark.parametrize("status", [0xF0, 0xF7])
def test_data_of_escapes_are_no_events(status: int, data: bytes, tmp_path: Path) -> None:
    escape = bytes([50, status, len(data)]) + data
    content = read_midi(with_tracks(tmp_path / "a.mid", 1, chunk(ON + escape + b"\x32" + OFF[1:] + END)))
    assert content.notes.tolist() == [(0.0, 0.5, 60, 64)]
    assert content.remarks.cut_tracks == 0


def test_many_notes_without_end_on_many_tracks_need_little_memory(tmp_path: Path) -> None:
    """Each pitch of each channel is struck 40 times; a note-off for every pitch as often would be 100 MB."""
    on = b"".join(bytes([0, 0x90 | channel, 60, 64]) for channel in range(16) if channel != 9)
    path = with_tracks(tmp_path / "a.mid", 40, *[chunk(on * 40 + b"\x64\xff\x2f\x00")] * 40)
    assert len(end_all_notes(path.read_bytes(), exact=True)) < 400_000
    content = read_midi(path)
    assert content.remarks.unended_notes == content.notes.size == 40 * 15 * 40
    assert set(content.notes["offset_sec"].tolist()) == {0.5}


def test_damaged_chunks_do_not_hide_the_reason(tmp_path: Path) -> None:
    content = write_events(tmp_path / "a.mid", notes([60, 62])).read_bytes()
    for damaged in (content[:-4], content[:20], content[:14] + b"MTrk" + b"\xff" * 8, content[:14]):
        (tmp_path / "b.mid").write_bytes(damaged)
        with pytest.raises(UserError, match=r"not a readable MIDI file|holds no notes"):
            Piece.from_midi(tmp_path / "b.mid")
