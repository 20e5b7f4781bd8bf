"""Mutators of MIDI files that leave the music as it is, so that a reader must give the same notes and beats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from chunks import (
    END_OF_TRACK,
    NAME,
    NOTE_OFF,
    NOTE_ON,
    TEXT,
    TRACK,
    Event,
    Midi,
    chunk,
    meta,
    track_bytes,
)
from midi_mutants import LONGEST, Random, at_random, changed_notes, joined, named, one_of


def running_status(rng: Random, midi: Midi) -> bytes:
    return joined(midi, [chunk(TRACK, track_bytes(track, running=True)) for track in midi.tracks])


def silent_note_ons(rng: Random, midi: Midi) -> bytes:
    def change(event: Event) -> Event:
        ends = event.status & 0xF0 == NOTE_OFF
        return Event(event.delta, NOTE_ON | event.status & 15, event.data[:1] + b"\0") if ends else event

    return changed_notes(rng, midi, change, 1)


def release_velocities(rng: Random, midi: Midi) -> bytes:
    def change(event: Event) -> Event:
        ends = event.status & 0xF0 == NOTE_OFF
        return replace(event, data=event.data[:1] + bytes([rng.integers(128)])) if ends else event

    return changed_notes(rng, midi, change, 1)


def longer_header(rng: Random, midi: Midi) -> bytes:
    more = rng.bytes(int(rng.integers(1, 40)))
    header = midi.header()
    return header[:4] + (6 + len(more)).to_bytes(4) + header[8:] + more + b"".join(midi.chunks())


def unknown_chunk(rng: Random, midi: Midi) -> bytes:
    chunks = midi.chunks()
    name = one_of(rng, [b"XFIH", b"XFKM", b"CASM", b"\0\1\2\3", b"mtrk"])
    chunks.insert(int(rng.integers(len(chunks) + 1)), chunk(name, rng.bytes(int(rng.integers(90)))))
    return joined(midi, chunks)


def other_events(rng: Random, midi: Midi) -> bytes:
    """Texts in any encoding, SysEx, port, sequencer events and pressure: none is music."""
    text = rng.bytes(int(rng.integers(60)))
    events = [
        meta(one_of(rng, [TEXT, 2, 5, 6, 7, 0x0A, 0x7F, 0x44]), text),
        meta(0x21, b"\0"),
        Event(0, 0xF0, bytes([0x7E, 0x7F, 9, 1, 0xF7])),
        Event(0, 0xF7, bytes(rng.integers(0, 256, 5, np.uint8))),
        Event(0, 0xD0, bytes([rng.integers(128)])),
        Event(0, 0xA0, bytes(rng.integers(0, 128, 2, np.uint8))),
        Event(0, 0xE0, bytes(rng.integers(0, 128, 2, np.uint8))),
    ]
    return at_random(rng, midi, [one_of(rng, events)], 5).to_bytes()


def padded_deltas(rng: Random, midi: Midi) -> bytes:
    return joined(midi, [chunk(TRACK, track_bytes(track, padding=1)) for track in midi.tracks])


def finer_resolution(rng: Random, midi: Midi) -> bytes:
    times = int(rng.integers(2, 32767 // midi.division + 1)) if midi.division * 2 < 32768 else 1
    tracks = tuple(tuple(replace(e, delta=e.delta * times) for e in track) for track in midi.tracks)
    return replace(midi, division=midi.division * times, tracks=tracks).to_bytes()


def other_channel(rng: Random, midi: Midi) -> bytes:
    if len({event.status for track in midi.tracks for event in track if event.starts}) > 1:
        return midi.to_bytes()  # on one channel, notes of one pitch would end each other
    channel = one_of(rng, [c for c in range(16) if c != 9])
    tracks = [
        [replace(e, status=e.status & 0xF0 | channel) if e.status < 0xF0 else e for e in track]
        for track in midi.tracks
    ]
    return replace(midi, tracks=tuple(map(tuple, tracks))).to_bytes()


def empty_track(rng: Random, midi: Midi) -> bytes:
    more = (meta(NAME, rng.bytes(8)), meta(END_OF_TRACK, b"", int(rng.integers(2000))))
    return replace(midi, file_format=1, tracks=(*midi.tracks, more)).to_bytes()


def later_end(rng: Random, midi: Midi) -> bytes:
    tracks = [(*track[:-1], replace(track[-1], delta=LONGEST)) for track in midi.tracks]
    return replace(midi, tracks=tuple(tracks)).to_bytes()


SAME = named(
    running_status,
    silent_note_ons,
    release_velocities,
    longer_header,
    unknown_chunk,
    other_events,
    padded_deltas,
    finer_resolution,
    other_channel,
    empty_track,
    later_end,
)
