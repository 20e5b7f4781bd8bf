"""Walks through the chunks and events of a Standard MIDI File, for what symusic does not tell.

Source: Standard MIDI Files 1.0, MIDI Manufacturers Association.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

HEADER_BYTES = 14
"""Length of the header chunk."""

NOTE_OFF, NOTE_ON, CONTROL_CHANGE, PROGRAM_CHANGE = 0x80, 0x90, 0xB0, 0xC0
SYSTEM_EXCLUSIVE, ESCAPE, META = 0xF0, 0xF7, 0xFF
END_OF_TRACK = b"\xff\x2f\x00"
_HEADER, _TRACK = b"MThd", b"MTrk"
_END_OF_TRACK_TYPE = 0x2F
_DATA_BYTES = {NOTE_OFF: 2, NOTE_ON: 2, 0xA0: 2, CONTROL_CHANGE: 2, PROGRAM_CHANGE: 1, 0xD0: 1, 0xE0: 2}


class Event(NamedTuple):
    """An event of a track.

    Attributes:
        start: Position of its delta time.
        at: Position after its delta time and its status byte, if it has one: that of its data.
        end: Position after the event.
        tick: Time from the start of the track.
        status: Status byte, also where it is that of the event before.
        is_end: Whether it is the end of its track.
    """

    start: int
    at: int
    end: int
    tick: int
    status: int
    is_end: bool


def track_chunks(content: bytes) -> Iterator[slice]:
    """Where the track chunks of a file lie, their headers included; a second file behind the first is left out."""
    at = HEADER_BYTES
    while at + 8 <= len(content) and content[at : at + 4] != _HEADER:
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8])
        if content[at : at + 4] == _TRACK:
            yield slice(at, min(end, len(content)))
        at = end


def track_events(content: bytes, start: int, stop: int) -> Iterator[Event]:
    """The events of a track up to and including the event that ends it.

    Args:
        content: A file.
        start: Position of the first event.
        stop: Position after the chunk; a damaged event may end after it.
    """
    content += bytes(4)  # the last event may break off
    at, tick, status = start, 0, 0
    while at < stop:
        first = at
        delta, at = _variable_length(content, at)
        tick += delta
        if content[at] & 0x80:
            status, at = content[at], at + 1
        data, is_end = at, False
        if status in (META, SYSTEM_EXCLUSIVE, ESCAPE):
            is_end = status == META and content[at] == _END_OF_TRACK_TYPE
            length, at = _variable_length(content, at + (status == META))
            at += length
        else:
            at += _DATA_BYTES.get(status & 0xF0, 0)
        yield Event(first, data, at, tick, status, is_end)
        if is_end:
            return


def _variable_length(content: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the position after it."""
    value = 0
    while at < len(content):
        byte = content[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            break
    return value, at
