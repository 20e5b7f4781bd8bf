"""Mutators of MIDI files: each changes bytes or the structure of a file at random places.

`LOSSY` holds those that cut something off, so that a reader must reject the file, say what is missing, or give the same
notes; `OTHER` the rest. Those that leave the music as it is stand in `midi_variants.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from chunks import (
    END_OF_TRACK,
    META,
    NAME,
    NOTE_ON,
    SIGNATURE,
    TEMPO,
    TEXT,
    TRACK,
    Event,
    Midi,
    chunk,
    event_bytes,
    meta,
    number,
)

Random = np.random.Generator
Mutator = Callable[[Random, Midi], bytes]
LONGEST = 2**28 - 1
"""Largest number of variable length that the standard allows."""


def pick(rng: Random, values: Sequence[object]) -> int:
    """Index of a random value."""
    return int(rng.integers(len(values)))


def one_of(rng: Random, values: Sequence[Any]) -> Any:
    """A random value."""
    return values[pick(rng, values)]


def at_random(rng: Random, midi: Midi, events: Sequence[Event], times: int = 1) -> Midi:
    """Inserts events at random places of random tracks, before their ends."""
    for _ in range(times):
        track = pick(rng, midi.tracks)
        kept = list(midi.tracks[track])
        place = int(rng.integers(len(kept)))
        midi = midi.with_track(track, [*kept[:place], *events, *kept[place:]])
    return midi


def changed_notes(rng: Random, midi: Midi, change: Callable[[Event], Event | None], share: float) -> bytes:
    """Changes a share of the note events of all tracks; None removes one, and its time goes to the next event."""
    for track, events in enumerate(midi.tracks):
        kept, carried = [], 0
        for event in events:
            wanted = event.is_note and rng.random() < share
            found = change(event) if wanted else event
            if found is None:
                carried += event.delta
            else:
                kept.append(replace(found, delta=found.delta + carried))
                carried = 0
        midi = midi.with_track(track, kept)
    return midi.to_bytes()


def joined(midi: Midi, tracks: Sequence[bytes]) -> bytes:
    """The file with other chunks after its header."""
    return midi.header() + b"".join(tracks)


# Music cut off


def truncated(rng: Random, midi: Midi) -> bytes:
    content = midi.to_bytes()
    return content[: int(rng.integers(len(content)))]


def truncated_late(rng: Random, midi: Midi) -> bytes:
    content = midi.to_bytes()
    return content[: len(content) - int(rng.integers(1, 40))]


def missing_tracks(rng: Random, midi: Midi) -> bytes:
    chunks = midi.chunks()
    del chunks[pick(rng, chunks)]
    return joined(midi, chunks)


def short_chunk(rng: Random, midi: Midi) -> bytes:
    """A chunk whose length is too small, the rest of its data follows."""
    chunks = midi.chunks()
    place = pick(rng, chunks)
    length = int(rng.integers(len(chunks[place]) - 8))
    chunks[place] = TRACK + length.to_bytes(4) + chunks[place][8:]
    return joined(midi, chunks)


def early_end(rng: Random, midi: Midi) -> bytes:
    """An end-of-track event among the notes."""
    return at_random(rng, midi, [meta(END_OF_TRACK, b"")]).to_bytes()


def no_end_of_track(rng: Random, midi: Midi) -> bytes:
    return replace(midi, tracks=tuple(track[:-1] for track in midi.tracks)).to_bytes()


# Anything else


def flipped_bytes(rng: Random, midi: Midi) -> bytes:
    content = bytearray(midi.to_bytes())
    for _ in range(int(rng.integers(1, 12))):
        content[pick(rng, content)] = rng.integers(256)
    return bytes(content)


def flipped_header(rng: Random, midi: Midi) -> bytes:
    content = bytearray(midi.to_bytes())
    for _ in range(int(rng.integers(1, 4))):
        content[int(rng.integers(30))] = one_of(rng, [0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))])
    return bytes(content)


def moved_bytes(rng: Random, midi: Midi) -> bytes:
    """Bytes inserted, removed, repeated or zeroed."""
    content = midi.to_bytes()
    start = int(rng.integers(len(content)))
    end = min(start + int(rng.integers(1, 60)), len(content))
    part = content[start:end]
    middle = one_of(rng, [b"", part * 3, bytes(len(part)), rng.bytes(int(rng.integers(1, 20))) + part])
    return content[:start] + middle + content[end:]


def header_fields(rng: Random, midi: Midi) -> bytes:
    fields = {"format": midi.file_format, "tracks": len(midi.tracks), "division": midi.division}
    values = {
        "format": [2, 3, 255, 65535],
        "tracks": [0, 1, 2, 65535],
        "division": [0, 1, 2, 32767, 0xE728, 0x8000, 0xFFFF],
    }
    name = one_of(rng, list(fields))
    fields[name] = one_of(rng, values[name])
    length = one_of(rng, [6, 6, 6, 6, 0, 5, 7, 2**31, 2**32 - 1])
    packed = b"".join(value.to_bytes(2) for value in fields.values())
    return b"MThd" + length.to_bytes(4) + packed + b"".join(midi.chunks())


def chunk_sizes(rng: Random, midi: Midi) -> bytes:
    chunks = midi.chunks()
    place = pick(rng, chunks)
    true = len(chunks[place]) - 8
    length = one_of(rng, [0, 1, true - 1, true + 1, true + 1000, 2**31 - 1, 2**31, 2**32 - 1])
    chunks[place] = TRACK + length.to_bytes(4) + chunks[place][8:]
    return joined(midi, chunks)


def tempi(rng: Random, midi: Midi) -> bytes:
    values = [0, 1, 10, 2**24 - 1, 500_000, int(rng.integers(2**24))]
    lengths = [3, 3, 3, 3, 0, 1, 2, 4]
    for _ in range(int(rng.integers(1, 30))):
        length = one_of(rng, lengths)
        value = one_of(rng, values) % 256**length
        midi = at_random(rng, midi, [meta(TEMPO, value.to_bytes(length) if length else b"")])
    return midi.to_bytes()


def signatures(rng: Random, midi: Midi) -> bytes:
    for _ in range(int(rng.integers(1, 30))):
        top = one_of(rng, [0, 1, 3, 5, 7, 13, 64, 255])
        bottom = one_of(rng, [0, 1, 2, 3, 4, 6, 7, 8, 31, 64, 255])
        midi = at_random(
            rng, midi, [meta(SIGNATURE, bytes([top, bottom, 24, 8])[: one_of(rng, [4, 4, 4, 2])])]
        )
    return midi.to_bytes()


def deltas(rng: Random, midi: Midi) -> bytes:
    track = pick(rng, midi.tracks)
    events = list(midi.tracks[track])
    for _ in range(int(rng.integers(1, 20))):
        place = pick(rng, events)
        values = [0, 1, 10**6, 2**24, LONGEST, LONGEST * 128]  # the last has five bytes, which is not allowed
        events[place] = replace(events[place], delta=one_of(rng, values))
    return midi.with_track(track, events).to_bytes()


def duplicated_chunks(rng: Random, midi: Midi) -> bytes:
    chunks = midi.chunks()
    chunks += [one_of(rng, chunks)] * int(rng.integers(1, 60))
    header = midi.header()
    if rng.random() < 0.5:
        header = replace(midi, file_format=1, tracks=(midi.tracks[0],) * len(chunks)).header()
    return header + b"".join(chunks)


def lost_note_offs(rng: Random, midi: Midi) -> bytes:
    return changed_notes(rng, midi, lambda e: e if e.starts else None, float(rng.choice([0.02, 0.3, 1.0])))


def doubled_note_ons(rng: Random, midi: Midi) -> bytes:
    """Notes struck many times and ended once, on all channels of many tracks: hard to end without much memory."""
    size = int(rng.integers(1, 20))
    events = [
        Event(0, NOTE_ON | int(channel), bytes([60, 64]))
        for channel in rng.permutation(16)[: int(rng.integers(1, 17))]
    ]
    tracks = [(*events * int(rng.integers(1, 40)), meta(END_OF_TRACK, b"", 96)) for _ in range(size)]
    return replace(midi, file_format=1, tracks=(*midi.tracks, *tracks)).to_bytes()


def damaged_notes(rng: Random, midi: Midi) -> bytes:
    def change(event: Event) -> Event:
        pitch, velocity = event.data
        data = one_of(
            rng, [(pitch | 0x80, velocity), (pitch, velocity | 0x80), (pitch, 0), (127, 127), (0, 1)]
        )
        return replace(event, data=bytes(data), status=event.status ^ one_of(rng, [0, 0, 0x10, 9, 0x20]))

    return changed_notes(rng, midi, change, float(rng.choice([0.01, 0.2])))


def instruments(rng: Random, midi: Midi) -> bytes:
    names = [b"drums", b"Click", b"beats", b"Percussion", "Schläge".encode("latin-1"), rng.bytes(300), b""]
    events = [Event(0, 0xC0, bytes([rng.integers(128)])), meta(NAME, one_of(rng, names))]
    return at_random(rng, midi, events, int(rng.integers(1, 4))).to_bytes()


def pedals(rng: Random, midi: Midi) -> bytes:
    for _ in range(int(rng.integers(1, 40))):
        controller = one_of(rng, [64, 64, 64, 66, 67, 120, 121, 123])
        midi = at_random(rng, midi, [Event(0, 0xB0, bytes([controller, rng.integers(128)]))])
    return midi.to_bytes()


def endless_events(rng: Random, midi: Midi) -> bytes:
    """An event that announces more data than there is, or a status that no event of a file has."""
    tails = [
        bytes([0, META, TEXT]) + number(LONGEST),
        b"\0\xf0" + number(2**20),
        b"\0\xf4",
        b"\0\xf9",
        b"\0\xff\xff\x7f",
        b"\x80" * 40,
        b"\0\x90",
        event_bytes(Event(0, NOTE_ON, b"\x3c\x40")),
    ]
    chunks = midi.chunks()
    place = pick(rng, chunks)
    at = int(rng.integers(8, len(chunks[place])))
    data = chunks[place][8:at] + one_of(rng, tails) + (chunks[place][at:] if rng.random() < 0.5 else b"")
    chunks[place] = chunk(TRACK, data)
    return joined(midi, chunks)


def other_content(rng: Random, midi: Midi) -> bytes:
    content = midi.to_bytes()
    size = len(content)
    return one_of(
        rng,
        [
            b"",
            b"MThd",
            content[:14],
            content[4:],
            b"RIFF" + size.to_bytes(4, "little") + b"RMIDdata" + size.to_bytes(4, "little") + content,
            bytes(200),
            rng.bytes(300),
            b"PK\3\4" + content,
            b"<html>not found</html>",
            content * 2,
            content.decode("latin-1").encode("utf-8"),
        ],
    )


def named(*mutators: Mutator) -> dict[str, Mutator]:
    return {mutator.__name__.replace("_", " "): mutator for mutator in mutators}


LOSSY = named(truncated, truncated_late, missing_tracks, short_chunk, early_end, no_end_of_track)
OTHER = named(
    flipped_bytes,
    flipped_header,
    moved_bytes,
    header_fields,
    chunk_sizes,
    tempi,
    signatures,
    deltas,
    duplicated_chunks,
    lost_note_offs,
    doubled_note_ons,
    damaged_notes,
    instruments,
    pedals,
    endless_events,
    other_content,
)
