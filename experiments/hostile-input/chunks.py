"""Standard MIDI Files as editable parts: the header, chunks, and the events of a track.

Written for this experiment from the standard, so that no mutant depends on the reader under test.
Source: Standard MIDI Files 1.0, MIDI Manufacturers Association.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TRACK = b"MTrk"
NOTE_OFF, NOTE_ON = 0x80, 0x90
META, TEMPO, SIGNATURE, TEXT, NAME, END_OF_TRACK = 0xFF, 0x51, 0x58, 0x01, 0x03, 0x2F
_ONE_DATA_BYTE = (0xC0, 0xD0)


@dataclass(frozen=True)
class Event:
    """One event of a track.

    Attributes:
        delta: Ticks since the event before.
        status: Status byte: channel voice message, 0xF0 or 0xF7 (SysEx) or 0xFF (meta).
        data: Data bytes; of a meta event its type and then its text or value.
    """

    delta: int
    status: int
    data: bytes

    @property
    def is_note(self) -> bool:
        """Whether it starts or ends a note."""
        return self.status & 0xF0 in (NOTE_OFF, NOTE_ON)

    @property
    def starts(self) -> bool:
        """Whether it starts a note."""
        return self.status & 0xF0 == NOTE_ON and self.data[1] > 0

    def is_meta(self, kind: int) -> bool:
        """Whether it is a meta event of this type."""
        return self.status == META and self.data[:1] == bytes([kind])


@dataclass(frozen=True)
class Midi:
    """A MIDI file.

    Attributes:
        file_format: 0, 1 or 2.
        division: Ticks per quarter note.
        tracks: The events of every track.
    """

    file_format: int
    division: int
    tracks: tuple[tuple[Event, ...], ...]

    def header(self) -> bytes:
        """The header chunk."""
        fields = (self.file_format, len(self.tracks), self.division)
        return b"MThd" + (6).to_bytes(4) + b"".join(value.to_bytes(2) for value in fields)

    def chunks(self) -> list[bytes]:
        """The track chunks."""
        return [chunk(TRACK, track_bytes(track)) for track in self.tracks]

    def to_bytes(self) -> bytes:
        """The file."""
        return self.header() + b"".join(self.chunks())

    def with_track(self, number: int, events: list[Event]) -> Midi:
        """The file with another track in one place."""
        tracks = [*self.tracks[:number], tuple(events), *self.tracks[number + 1 :]]
        return replace(self, tracks=tuple(tracks))


def meta(kind: int, data: bytes, delta: int = 0) -> Event:
    """A meta event."""
    return Event(delta, META, bytes([kind]) + data)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length."""
    return name + len(data).to_bytes(4) + data


def number(value: int, padding: int = 0) -> bytes:
    """A number of variable length, with `padding` superfluous leading bytes."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes([0x80] * padding + groups[::-1])


def event_bytes(event: Event, running: int = 0, padding: int = 0) -> bytes:
    """An event with its delta time; its status is left out where `running` is the same."""
    delta = number(event.delta, padding)
    if event.status == META:
        return delta + bytes([META]) + event.data[:1] + number(len(event.data) - 1) + event.data[1:]
    if event.status >= 0xF0:
        return delta + bytes([event.status]) + number(len(event.data)) + event.data
    return delta + (b"" if event.status == running else bytes([event.status])) + event.data


def track_bytes(events: tuple[Event, ...] | list[Event], running: bool = False, padding: int = 0) -> bytes:
    """The events of a track, with running status if asked for."""
    parts, last = [], 0
    for event in events:
        parts.append(event_bytes(event, last if running else 0, padding))
        last = event.status if event.status < 0xF0 else 0
    return b"".join(parts)


def parse(content: bytes) -> Midi:
    """Reads a well-formed file."""
    file_format, count, division = (int.from_bytes(content[at : at + 2]) for at in (8, 10, 12))
    at, tracks = 8 + int.from_bytes(content[4:8]), []
    while at < len(content):
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8])
        if content[at : at + 4] == TRACK:
            tracks.append(tuple(_events(content[at + 8 : end])))
        at = end
    assert len(tracks) == count, "a well-formed file"
    return Midi(file_format, division, tuple(tracks))


def _events(data: bytes) -> list[Event]:
    events, at, status = [], 0, 0
    while at < len(data):
        delta, at = _number(data, at)
        if data[at] & 0x80:
            status, at = data[at], at + 1
        if status == META:
            length, start = _number(data, at + 1)
            events.append(Event(delta, status, data[at : at + 1] + data[start : start + length]))
            at = start + length
            continue
        length = 1 if status & 0xF0 in _ONE_DATA_BYTE else 2
        if status >= 0xF0:
            length, at = _number(data, at)
        events.append(Event(delta, status, data[at : at + length]))
        at += length
    return events


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value, byte, at = value << 7 | data[at] & 0x7F, data[at], at + 1
        if not byte & 0x80:
            return value, at
