"""Copies of MIDI files in which only the velocities of notes differ.

Source of the event lengths: Standard MIDI Files 1.0, MIDI Manufacturers Association.
Shapes: N notes of a piece, E note-on events of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import symusic

from pianolm.errors import UserError
from pianolm.music.midi_bytes import HEADER_BYTES, end_all_notes, read_midi_bytes, write_midi_bytes
from pianolm.music.notes import Notes
from pianolm.music.tempo_map import TempoMap
from pianolm.music.tracks import PIANO_PROGRAMS, Track, assign_roles, read_track

_DRUM_CHANNEL = 9
_DATA_BYTES = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
_NOTE_ON, _PROGRAM_CHANGE, _META, _SYSTEM_EXCLUSIVE = 0x90, 0xC0, 0xFF, (0xF0, 0xF7)


class NoteOn(NamedTuple):
    """A note-on event of a file.

    Attributes:
        at: Position of its velocity byte.
        tick: Time.
        pitch: 0–127.
        part: Number of its track, its program, and whether its channel is that of drums.
    """

    at: int
    tick: int
    pitch: int
    part: tuple[int, int, bool]


def write_velocities(source: str | Path, path: str | Path, notes: Notes) -> None:
    """Writes a copy of a MIDI file with other velocities: every other byte of its events stays as it is.

    Args:
        source: The file that the notes were read from.
        path: File to write.
        notes: [N] note array: the notes of `source` with the velocities to write, 1–127.

    Raises:
        UserError: The file cannot be read or written, or its notes are not these.
    """
    source = Path(source)
    content = read_midi_bytes(source)
    score = symusic.Score.from_midi(end_all_notes(content))
    tempo = TempoMap.of_score(score)
    events = list(_note_ons(content))
    onset_sec = tempo.seconds(np.array([event.tick for event in events], np.int64))
    rank = _ranks(content, score.ticks_per_quarter)
    velocities: dict[tuple[float, int], list[int]] = {}
    for onset, pitch, velocity in zip(
        notes["onset_sec"].tolist(), notes["pitch"].tolist(), notes["velocity"].tolist(), strict=True
    ):
        velocities.setdefault((onset, pitch), []).append(velocity)
    changed = bytearray(content)
    order = sorted(range(len(events)), key=lambda index: rank.get(events[index].part, 1))
    for index, onset in zip(order, onset_sec[order].tolist(), strict=True):
        left = velocities.get((onset, events[index].pitch))
        if left:
            changed[events[index].at] = left.pop(0)
    missing = sum(map(len, velocities.values()))
    if missing:
        raise UserError(
            f"{source}: {missing} of {notes.size} notes of the piece are not in this file; give the file that the "
            "piece was read from"
        )
    write_midi_bytes(path, bytes(changed))


def _ranks(content: bytes, ticks_per_quarter: int) -> dict[tuple[int, int, bool], int]:
    """0 for the parts that are piano music, 1 for other instruments, 2 for drums and beats, which are never music."""
    tracks: dict[tuple[int, int, bool], Track] = {}
    header = content[:HEADER_BYTES]
    for number, chunk in enumerate(_track_chunks(content)):
        alone = header[:10] + (1).to_bytes(2) + header[12:] + content[chunk]
        score = symusic.Score.from_midi(end_all_notes(alone))
        for track in map(read_track, score.tracks):
            tracks[number, track.program, track.is_drum] = track
    roles = assign_roles(list(tracks.values()), frozenset(PIANO_PROGRAMS), ticks_per_quarter)
    of_track = {id(track): 0 for track in roles.music} | {id(t): 2 for t in (*roles.beats, *roles.drums)}
    return {part: of_track.get(id(track), 1) for part, track in tracks.items()}


def _track_chunks(content: bytes) -> Iterator[slice]:
    """Where the track chunks of a file lie, headers included."""
    at = HEADER_BYTES
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8])
        if content[at : at + 4] == b"MTrk":
            yield slice(at, min(end, len(content)))
        at = end


def _note_ons(content: bytes) -> Iterator[NoteOn]:
    """The note-on events of all tracks, those with velocity 0 (ends of notes) left out."""
    content += bytes(4)  # the last event may break off
    for number, chunk in enumerate(_track_chunks(content)):
        at, tick, status, program = chunk.start + 8, 0, 0, [0] * 16
        while at < chunk.stop:
            delta, at = _variable_length(content, at)
            tick += delta
            if content[at] & 0x80:
                status, at = content[at], at + 1
            if status == _META or status in _SYSTEM_EXCLUSIVE:
                length, at = _variable_length(content, at + (status == _META))
                at += length
                continue
            kind, channel = status & 0xF0, status & 0x0F
            if kind == _NOTE_ON and content[at + 1]:
                part = (number, program[channel], channel == _DRUM_CHANNEL)
                yield NoteOn(at + 1, tick, content[at], part)
            elif kind == _PROGRAM_CHANGE:
                program[channel] = content[at]
            at += _DATA_BYTES.get(kind, 0)


def _variable_length(content: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the position after it."""
    value = 0
    while at < len(content):
        byte = content[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            break
    return value, at
