"""Bytes of Standard MIDI Files, prepared for symusic: the header is checked, and every note gets an end.

symusic drops a note that has no note-off event. `end_all_notes` therefore adds note-off events long after the end of
every track: a note that ends there had no end of its own.
Source: Standard MIDI Files 1.0, MIDI Manufacturers Association.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from pianolm.errors import UserError

HEADER_BYTES = 14
"""Length of the header chunk."""

_END_OF_TRACK = b"\xff\x2f\x00"
_LONGEST_DELTA = b"\xff\xff\xff\x7f"
_EMPTY_TEXT = b"\xff\x01\x00"
_DELTAS = 4
_WAIT = _EMPTY_TEXT + (_LONGEST_DELTA + _EMPTY_TEXT) * (_DELTAS - 1) + _LONGEST_DELTA
_NOTE_OFF, _NOTE_ON, _CONTROL_CHANGE = 0x80, 0x90, 0xB0
_ALL_PITCHES = b"".join(bytes([pitch, 0, 0]) for pitch in range(128))
"""Pitch, velocity and delta time of note-off events that follow one status byte."""

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


def end_all_notes(content: bytes, repeats: int = 1, keep_controls: bool = False) -> bytes:
    """Adds note-off events for every pitch `ADDED_TICKS` after the end of every track.

    Args:
        content: A file as `read_midi_bytes` returns it. Damaged chunks are left as they are.
        repeats: Number of note-off events per pitch, each of which ends one note.
        keep_controls: Whether to add a note after them on channels with control changes, because symusic drops the
            control changes of tracks without notes.
    """
    parts, at = [content[:HEADER_BYTES]], HEADER_BYTES
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8])
        chunk = content[at:end]
        if chunk.startswith(b"MTrk") and chunk.endswith(_END_OF_TRACK) and end <= len(content):
            added = _note_offs(chunk, repeats) + (_late_notes(chunk) if keep_controls else b"")
            # The delta time of the end-of-track event now precedes the added events, each of which ends with one of 0.
            wait = _WAIT if added else b""
            events = chunk[8 : -len(_END_OF_TRACK)] + wait + added + _END_OF_TRACK
            chunk = b"MTrk" + len(events).to_bytes(4) + events
        parts.append(chunk)
        at = end
    return b"".join(parts) + content[at:]


def _note_offs(chunk: bytes, repeats: int) -> bytes:
    """Events that end notes of all channels on which a track may have notes."""
    return b"".join(
        bytes([_NOTE_OFF + channel]) + _ALL_PITCHES * repeats for channel in _channels(chunk, _NOTE_ON)
    )


def _late_notes(chunk: bytes) -> bytes:
    """A note of one tick on all channels on which a track may have control changes."""
    return b"".join(
        bytes([_NOTE_ON + channel, 0, 1, 1, _NOTE_OFF + channel, 0, 0, 0])
        for channel in _channels(chunk, _CONTROL_CHANGE)
    )


def _channels(chunk: bytes, status: int) -> list[int]:
    """Channels whose status byte occurs in a chunk; it may also occur in another meaning, which does no harm."""
    return [channel for channel in range(16) if status + channel in chunk]
