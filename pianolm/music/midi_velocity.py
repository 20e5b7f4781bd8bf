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
from pianolm.music.midi_bytes import end_all_notes, found_tracks, read_midi_bytes, write_midi_bytes
from pianolm.music.midi_events import HEADER_BYTES, NOTE_ON, PROGRAM_CHANGE, track_chunks, track_events
from pianolm.music.notes import Notes
from pianolm.music.tempo_map import TempoMap
from pianolm.music.tracks import PIANO_PROGRAMS, Track, assign_roles, read_track

_DRUM_CHANNEL = 9


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
    score = symusic.Score.from_midi(end_all_notes(found_tracks(source, content)[0]))
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
    for number, chunk in enumerate(track_chunks(content)):
        alone = header[:10] + (1).to_bytes(2) + header[12:] + content[chunk]
        score = symusic.Score.from_midi(end_all_notes(alone))
        for track in map(read_track, score.tracks):
            tracks[number, track.program, track.is_drum] = track
    roles = assign_roles(list(tracks.values()), frozenset(PIANO_PROGRAMS), ticks_per_quarter)
    of_track = {id(track): 0 for track in roles.music} | {id(t): 2 for t in (*roles.beats, *roles.drums)}
    return {part: of_track.get(id(track), 1) for part, track in tracks.items()}


def _note_ons(content: bytes) -> Iterator[NoteOn]:
    """The note-on events of all tracks, those with velocity 0 (ends of notes) left out."""
    for number, chunk in enumerate(track_chunks(content)):
        program = [0] * 16
        for event in track_events(content, chunk.start + 8, chunk.stop):
            kind, channel = event.status & 0xF0, event.status & 0x0F
            if event.end > chunk.stop:
                break
            if kind == NOTE_ON and content[event.at + 1]:
                part = (number, program[channel], channel == _DRUM_CHANNEL)
                yield NoteOn(event.at + 1, event.tick, content[event.at], part)
            elif kind == PROGRAM_CHANGE:
                program[channel] = content[event.at]
