"""Bytes of Standard MIDI Files, prepared for symusic: the header is checked, and every note gets an end.

symusic drops a note that has no note-off event. `end_all_notes` therefore adds note-off events long after the end of
every track: a note that ends there had no end of its own.
Source: Standard MIDI Files 1.0, MIDI Manufacturers Association.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from pianolm.errors import UserError
from pianolm.music.midi_events import (
    CONTROL_CHANGE,
    END_OF_TRACK,
    ESCAPE,
    HEADER_BYTES,
    NOTE_OFF,
    NOTE_ON,
    track_chunks,
    track_events,
)

_LONGEST_DELTA = b"\xff\xff\xff\x7f"
_EMPTY_TEXT = b"\xff\x01\x00"
_DELTAS = 4
_WAIT = _EMPTY_TEXT + (_LONGEST_DELTA + _EMPTY_TEXT) * (_DELTAS - 1) + _LONGEST_DELTA
_ALL_PITCHES = b"".join(bytes([pitch, 0, 0]) for pitch in range(128))
"""Pitch, velocity and delta time of note-off events that follow one status byte."""

_MOST_TRACKS = 2**16 - 1
_SYSTEM_EXCLUSIVE_EVENT = re.compile(rb"\xf0[\x80-\xff]{0,3}[\x00-\x7f]+\xf7")

ADDED_TICKS = _DELTAS * (2**28 - 1)
"""Ticks from the end of a track to the note-off events that `end_all_notes` adds."""


def read_midi_bytes(path: Path) -> bytes:
    """Reads a MIDI file of format 0 or 1 whose times are in ticks per quarter note.

    Returns:
        The file with a header of the usual length.

    Raises:
        UserError: The file is missing or not a regular file, or its header is damaged or of an unsupported kind.
    """
    try:
        if not path.is_file():
            other = " (a folder, pipe or device has this name)" if path.exists() else ""
            raise UserError(f"{path}: no such file{other}; expected the path of a MIDI file")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    length = int.from_bytes(content[4:8])
    if content[:4] != b"MThd" or length < 6 or len(content) < 8 + length:
        raise UserError(
            f"{path}: not a readable MIDI file (no MThd header found); expected a Standard MIDI File"
        )
    _check_header(path, int.from_bytes(content[8:10]), int.from_bytes(content[12:14]))
    if length > 6:  # the standard allows longer headers, symusic does not
        content = content[:4] + (6).to_bytes(4) + content[8:HEADER_BYTES] + content[8 + length :]
    return content


def write_midi_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that a crash leaves no incomplete file."""
    path = Path(path)
    partial = path.with_name(f".{blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _check_header(path: Path, file_format: int, division: int) -> None:
    if file_format == 2:
        raise UserError(
            f"{path}: a MIDI file of format 2 (independent patterns) found, expected format 0 or 1; "
            "export the patterns as one sequence"
        )
    if file_format > 2:
        raise UserError(f"{path}: MIDI format {file_format} found, expected 0 or 1; the file is damaged")
    if division & 0x8000:
        raise UserError(
            f"{path}: SMPTE time division (frames per second) is not supported, expected ticks per quarter note; "
            "export the file with a resolution in ticks per quarter note"
        )
    if division == 0:
        raise UserError(
            f"{path}: a resolution of 0 ticks per quarter note found, expected at least 1; the file is damaged"
        )


def found_tracks(path: Path, content: bytes) -> tuple[bytes, int]:
    """Makes the header announce the tracks that a file has; symusic reads as many as it announces.

    Returns:
        The file, and how many of the tracks announced are missing.
    """
    announced, found = int.from_bytes(content[10:12]), sum(1 for _ in track_chunks(content))
    if found > _MOST_TRACKS:
        raise UserError(f"{path}: {found} tracks found, expected at most {_MOST_TRACKS}; the file is damaged")
    return content[:10] + found.to_bytes(2) + content[12:], max(announced - found, 0)


def is_cut_short(content: bytes) -> Iterator[bool]:
    """For every track whether it ends without an end-of-track event, or before the end of its data."""
    for chunk in track_chunks(content):
        if content.count(END_OF_TRACK, chunk.start, chunk.stop) == 1 and content[chunk].endswith(
            END_OF_TRACK
        ):
            yield False  # the usual case
        else:
            events = list(track_events(content, chunk.start + 8, chunk.stop))
            yield not events or not events[-1].is_end or events[-1].end < chunk.stop


def end_all_notes(content: bytes, exact: bool = False, keep_controls: bool = False) -> bytes:
    """Adds note-off events `ADDED_TICKS` after the end of every track.

    Args:
        content: A file as `read_midi_bytes` returns it. Damaged chunks are left as they are.
        exact: Whether to add as many as there are notes without an end, which takes longer; else one per pitch of
            every channel with notes.
        keep_controls: Whether to add a note after them on channels with control changes, because symusic drops the
            control changes of tracks without notes.
    """
    parts, at = [], 0
    for chunk in track_chunks(content):
        data = _readable(content[chunk.start + 8 : chunk.stop])
        if data.endswith(END_OF_TRACK) and chunk.stop - chunk.start == 8 + _length(content, chunk.start):
            added = _missing_note_offs(data) if exact else _note_offs(data)
            added += _late_notes(data) if keep_controls else b""
            # The delta time of the end-of-track event now precedes the added events, each of which ends with one of 0.
            wait = _WAIT if added else b""
            data = data[: -len(END_OF_TRACK)] + wait + added + END_OF_TRACK
            parts += [content[at : chunk.start + 4], len(data).to_bytes(4), data]
            at = chunk.stop
    return b"".join(parts) + content[at:]


def _length(content: bytes, at: int) -> int:
    return int.from_bytes(content[at + 4 : at + 8])


def _readable(data: bytes) -> bytes:
    """The events of a track as symusic reads them.

    It reads what an escape (an event of status 0xF7, whose data may be anything) holds as further events, and a track
    without an end only up to its last event. Such tracks are written anew; damaged ones are left as they are.
    """
    has_escape = data.count(b"\xf7") != len(_SYSTEM_EXCLUSIVE_EVENT.findall(data))
    if not has_escape and data.count(END_OF_TRACK) == 1 and data.endswith(END_OF_TRACK):
        return data  # the usual case
    parts, end = [], 0
    for event in track_events(data, 0, len(data)):
        if event.status == ESCAPE:
            parts += [data[event.start : event.at - 1], _EMPTY_TEXT]
        else:
            parts.append(data[event.start : event.end])
        end = event.end
    if end > len(data) or not parts:
        return data
    whole = b"".join(parts)
    return whole if whole.endswith(END_OF_TRACK) else whole + b"\0" + END_OF_TRACK


def _note_offs(data: bytes) -> bytes:
    """Events that end a note of every pitch of all channels on which a track may have notes."""
    return b"".join(bytes([NOTE_OFF + channel]) + _ALL_PITCHES for channel in _channels(data, NOTE_ON))


def _missing_note_offs(data: bytes) -> bytes:
    """Events that end the notes without an end."""
    sounding: Counter[tuple[int, int]] = Counter()
    for event in track_events(data, 0, len(data)):
        kind, channel = event.status & 0xF0, event.status & 0x0F
        if event.end > len(data):
            break
        if kind == NOTE_ON and data[event.at + 1]:
            sounding[channel, data[event.at]] += 1
        elif kind in (NOTE_ON, NOTE_OFF) and sounding[channel, data[event.at]]:
            sounding[channel, data[event.at]] -= 1
    return b"".join(
        bytes([NOTE_OFF + channel, pitch, 0, 0]) * count for (channel, pitch), count in sounding.items()
    )


def _late_notes(data: bytes) -> bytes:
    """A note of one tick on all channels on which a track may have control changes."""
    return b"".join(
        bytes([NOTE_ON + channel, 0, 1, 1, NOTE_OFF + channel, 0, 0, 0])
        for channel in _channels(data, CONTROL_CHANGE)
    )


def _channels(data: bytes, status: int) -> list[int]:
    """Channels whose status byte occurs in a track; it may also occur in another meaning, which does no harm."""
    return [channel for channel in range(16) if status + channel in data]
