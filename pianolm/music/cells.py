"""Notes ↔ cells: a cell is one (beat, pitch) of the piano roll, stored as two 48-bit masks and its velocities.

Shapes: N notes, C cells, S segments, F = 48 frames, B beats.

A piano roll holds one note per pitch at a time. Notes are therefore resolved by three rules (`Collisions` counts the
first two): notes of one pitch that start in the same frame are merged into one with the loudest velocity and the latest
end; a note ends where the next note of its pitch starts; a note lasts at least one frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.notes import NOTE_DTYPE, Notes

FRAME_MASK = np.uint64((1 << FRAMES) - 1)
_ONE = np.uint64(1)

FRAME_NOTE_DTYPE = np.dtype([("onset", "<i8"), ("end", "<i8"), ("pitch", "u1"), ("velocity", "u1")])
"""One note on the grid: its first frame and the frame after its last, both counted from beat 0."""

FrameNotes = NDArray[np.void]


@dataclass(frozen=True)
class Collisions:
    """Numbers of notes merged into another one, and cut where their pitch is struck again."""

    merged: int = 0
    cut: int = 0


@dataclass(frozen=True, eq=False)
class Cells:
    """Active cells of one piece, sorted by (beat, pitch).

    Attributes:
        beat: [C] int32, 0 … n_beats − 1.
        pitch: [C] uint8, MIDI pitch.
        sustain: [C] uint64, bit f is set if a note sounds in frame f.
        onset: [C] uint64, bit f is set if a note starts in frame f; a subset of `sustain`. Every run of sustain
            inside a cell starts with an onset, except a run from frame 0 on, which may be tied over from the beat
            before (see `strike_after_silence`).
        segment_velocity: [S] uint8, 1–127; segments are ordered by cell, then by time.
        n_beats: Number of beats of the grid, including beats without notes.
    """

    beat: NDArray[np.int32]
    pitch: NDArray[np.uint8]
    sustain: NDArray[np.uint64]
    onset: NDArray[np.uint64]
    segment_velocity: NDArray[np.uint8]
    n_beats: int

    def __len__(self) -> int:
        return self.beat.size

    @cached_property
    def segment_count(self) -> NDArray[np.int64]:
        """[C] number of segments of each cell, at least 1."""
        return np.bitwise_count(segment_starts(self.sustain, self.onset)).astype(np.int64)

    @cached_property
    def segment_offset(self) -> NDArray[np.int64]:
        """[C + 1] index in `segment_velocity` of the first segment of each cell; the last entry is S."""
        return np.concatenate([[0], np.cumsum(self.segment_count)])

    @property
    def struck_notes(self) -> int:
        """Number of notes that start in the cells (tied cells not counted again)."""
        return int(np.bitwise_count(self.onset).sum())


def segment_starts(sustain: NDArray[np.uint64], onset: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[C] masks of the frames where a segment starts: every onset, and frame 0 of a tied note."""
    return onset | (sustain & _ONE)


def strike_after_silence(sustain: NDArray[np.uint64], onset: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[C] onset masks with an onset added wherever sustain follows silence inside a cell."""
    return onset | (sustain & ~(sustain << _ONE) & ~_ONE & FRAME_MASK)


def segment_lengths(sustain: NDArray[np.uint64], onset: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[S] length of every segment in frames, ordered by cell."""
    return _segment_spans(sustain, onset)[2]


def segment_of_frame(sustain: NDArray[np.uint64], onset: NDArray[np.uint64]) -> NDArray[np.int8]:
    """[C, F] index, within its cell, of the segment sounding in each frame; −1 where silent."""
    starts = _bits(segment_starts(sustain, onset))
    index = np.cumsum(starts, axis=1, dtype=np.int8) - np.int8(1)
    return np.where(_bits(sustain), index, np.int8(-1))


def frame_velocity(cells: Cells) -> NDArray[np.uint8]:
    """[C, F] velocity of the note sounding in each frame; 0 where silent."""
    segment = segment_of_frame(cells.sustain, cells.onset)
    flat = cells.segment_offset[:-1, None] + np.maximum(segment, 0)
    return np.where(segment >= 0, cells.segment_velocity[flat], np.uint8(0))


def notes_to_frames(notes: Notes, beats_sec: NDArray[np.float64]) -> tuple[FrameNotes, Collisions]:
    """Quantizes notes to frames and resolves collisions.

    Args:
        notes: [N] note array.
        beats_sec: [B + 1] strictly increasing beat times; every note starts before the last one.

    Returns:
        [N'] frame notes sorted by (pitch, onset), of which no two of one pitch overlap, and the numbers of collisions.
    """
    onset = seconds_to_frames(notes["onset_sec"], beats_sec)
    end = np.maximum(seconds_to_frames(notes["offset_sec"], beats_sec), onset + 1)
    return resolve_collisions(onset, end, notes["pitch"], notes["velocity"], (beats_sec.size - 1) * FRAMES)


def seconds_to_frames(time_sec: NDArray[np.float64], beats_sec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Quantizes times [N] in seconds to the nearest frame (1/48 of the beat they lie in), counted from beat 0."""
    time_sec = np.ascontiguousarray(time_sec)
    # Onsets are sorted, and then searching for the beats among them is cheaper.
    if (time_sec[1:] >= time_sec[:-1]).all():
        first = np.empty(beats_sec.size, np.int64)
        first[0], first[-1] = 0, time_sec.size
        first[1:-1] = np.searchsorted(time_sec, beats_sec[1:-1])
        beat = np.repeat(np.arange(beats_sec.size - 1), first[1:] - first[:-1])
    else:
        beat = np.searchsorted(beats_sec[1:-1], time_sec, side="right")
    fraction = (time_sec - beats_sec[beat]) / (beats_sec[beat + 1] - beats_sec[beat])
    return beat * FRAMES + np.rint(FRAMES * fraction).astype(np.int64)


def frames_to_seconds(frames: NDArray[np.integer], beats_sec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times [N] in seconds of frames [N], counted from beat 0 and not after the last beat time."""
    beat = np.minimum(frames // FRAMES, beats_sec.size - 2)
    return beats_sec[beat] + (frames - beat * FRAMES) * (np.diff(beats_sec) / FRAMES)[beat]


def resolve_collisions(
    onset: NDArray[np.int64],
    end: NDArray[np.int64],
    pitch: NDArray[np.uint8],
    velocity: NDArray[np.uint8],
    n_frames: int,
) -> tuple[FrameNotes, Collisions]:
    """Applies the rules in the module docstring, and moves all notes [N] into the frames 0 … n_frames − 1."""
    onset = np.minimum(np.maximum(onset, 0), max(n_frames - 1, 0))
    key = pitch.astype(np.int64) * (n_frames + 1) + onset
    is_sorted = bool((onset[1:] >= onset[:-1]).all())
    order = stable_order(pitch, 128) if is_sorted else np.argsort(key, kind="stable")
    key = key[order]
    new = np.ones(key.size, bool)
    new[1:] = key[1:] != key[:-1]
    merged = np.zeros(int(new.sum()), FRAME_NOTE_DTYPE)
    if merged.size == key.size:  # the usual case, without merging
        merged["onset"], merged["pitch"], merged["velocity"] = onset[order], pitch[order], velocity[order]
        merged["end"] = np.minimum(end[order], n_frames)
    else:
        first = np.flatnonzero(new)
        merged["onset"], merged["pitch"] = onset[order][first], pitch[order][first]
        merged["end"] = np.minimum(np.maximum.reduceat(end[order], first), n_frames)
        merged["velocity"] = np.maximum.reduceat(velocity[order], first)
    struck_again = np.flatnonzero(
        (merged["pitch"][1:] == merged["pitch"][:-1]) & (merged["end"][:-1] > merged["onset"][1:])
    )
    merged["end"][struck_again] = merged["onset"][struck_again + 1]
    return merged, Collisions(merged=onset.size - merged.size, cut=struck_again.size)


def resolve_notes(notes: Notes, beats_sec: NDArray[np.float64]) -> tuple[Notes, FrameNotes]:
    """Merges and cuts notes as `notes_to_frames` does, but keeps their times in seconds.

    Args:
        notes: [N] note array.
        beats_sec: [B + 1] strictly increasing beat times; every note starts before the last one.

    Returns:
        [N'] notes of which no two of one pitch overlap, and their frame notes, both sorted by (pitch, onset).
    """
    frame_notes, _ = notes_to_frames(notes, beats_sec)
    frame = seconds_to_frames(notes["onset_sec"], beats_sec)
    frame = np.clip(frame, 0, max((beats_sec.size - 1) * FRAMES - 1, 0))
    order = np.lexsort((notes["onset_sec"], frame, notes["pitch"]))
    pitch, frame = notes["pitch"][order], frame[order]
    new = np.ones(notes.size, bool)
    new[1:] = (pitch[1:] != pitch[:-1]) | (frame[1:] != frame[:-1])
    first = np.flatnonzero(new)
    resolved = np.empty(first.size, NOTE_DTYPE)
    resolved["onset_sec"], resolved["pitch"] = notes["onset_sec"][order][first], pitch[first]
    resolved["velocity"] = frame_notes["velocity"]
    if first.size:
        resolved["offset_sec"] = np.maximum.reduceat(notes["offset_sec"][order], first)
    same_pitch = np.flatnonzero(resolved["pitch"][1:] == resolved["pitch"][:-1])
    resolved["offset_sec"][same_pitch] = np.minimum(
        resolved["offset_sec"][same_pitch], resolved["onset_sec"][same_pitch + 1]
    )
    return resolved, frame_notes


def frames_to_cells(frame_notes: FrameNotes, n_beats: int) -> Cells:
    """Splits frame notes (of which no two of one pitch overlap) at the beats and gathers the parts into cells."""
    onset, end = np.ascontiguousarray(frame_notes["onset"]), np.ascontiguousarray(frame_notes["end"])
    first_beat = onset // FRAMES
    parts = (end - 1) // FRAMES - first_beat + 1
    note = np.repeat(np.arange(onset.size), parts)
    at = np.cumsum(parts) - parts  # first part of each note
    beat = np.arange(note.size) + (first_beat - at)[note]
    low = np.zeros(note.size, np.uint64)
    low[at] = onset - first_beat * FRAMES
    high = np.minimum(end[note] - beat * FRAMES, FRAMES).astype(np.uint64)
    sustain = (_ONE << high) - (_ONE << low)
    struck = np.zeros(note.size, np.uint64)
    struck[at] = _ONE << low[at]
    order = stable_order(beat, n_beats)  # parts are already sorted by pitch and time
    key = beat[order] * 128 + frame_notes["pitch"][note[order]]
    new = np.ones(key.size, bool)
    new[1:] = key[1:] != key[:-1]
    first = np.flatnonzero(new)  # first part of each cell
    empty = np.zeros(0, np.uint64)
    return Cells(
        beat=(key[first] >> 7).astype(np.int32),
        pitch=(key[first] & 127).astype(np.uint8),
        sustain=np.bitwise_or.reduceat(sustain[order], first) if first.size else empty,
        onset=np.bitwise_or.reduceat(struck[order], first) if first.size else empty,
        segment_velocity=frame_notes["velocity"][note[order]],
        n_beats=n_beats,
    )


def cells_to_frames(cells: Cells) -> FrameNotes:
    """Joins the segments of cells into notes sorted by (pitch, onset).

    A segment at frame 0 without an onset continues the note of its pitch that sounds in the last frame of the beat
    before; if there is none, it starts a note.
    """
    cell, start, length = _segment_spans(cells.sustain, cells.onset)
    onset = cells.beat[cell].astype(np.int64) * FRAMES + start
    struck = (cells.onset[cell] >> start.astype(np.uint64)) & _ONE == _ONE
    order = stable_order(cells.pitch[cell], 128)  # segments are already sorted by time
    onset, struck = onset[order], struck[order]
    pitch, end = cells.pitch[cell[order]], onset + length[order]
    follows = np.zeros(cell.size, bool)
    follows[1:] = (pitch[1:] == pitch[:-1]) & (end[:-1] == onset[1:])
    first = np.flatnonzero(struck | ~follows)
    notes = np.zeros(first.size, FRAME_NOTE_DTYPE)
    if first.size:
        notes["onset"], notes["pitch"] = onset[first], pitch[first]
        notes["end"] = np.maximum.reduceat(end, first)
        notes["velocity"] = cells.segment_velocity[order][first]
    return notes


def frames_to_notes(frame_notes: FrameNotes, beats_sec: NDArray[np.float64]) -> Notes:
    """Converts frame notes sorted by (pitch, onset) to notes in seconds sorted by (onset, pitch)."""
    onset, end = frame_notes["onset"], frame_notes["end"]
    order = stable_order(onset, (beats_sec.size - 1) * FRAMES)
    notes = np.empty(frame_notes.size, NOTE_DTYPE)
    notes["onset_sec"] = frames_to_seconds(onset[order], beats_sec)
    notes["offset_sec"] = frames_to_seconds(end[order], beats_sec)
    notes["pitch"], notes["velocity"] = frame_notes["pitch"][order], frame_notes["velocity"][order]
    return notes


def stable_order(key: NDArray[np.integer], below: int) -> NDArray[np.int64]:
    """[N] indices that stably sort keys in 0 … below − 1, with NumPy's radix sort if 16 bits are enough."""
    small = np.uint8 if below <= 1 << 8 else np.uint16 if below <= 1 << 16 else np.int64
    return np.argsort(key.astype(small), kind="stable")


def _bits(mask: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Unpacks [C] masks to [C, F] booleans."""
    return (mask[:, None] >> np.arange(FRAMES, dtype=np.uint64)) & _ONE == _ONE


def _segment_spans(
    sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """[S] cell index, first frame and length of every segment, ordered by cell and time."""
    starts = segment_starts(sustain, onset)
    count = np.bitwise_count(starts).astype(np.int64)
    offset = np.cumsum(count) - count
    rest = np.empty(int(count.sum()), np.uint64)  # of each segment: the starts in its cell from it on
    rows = np.flatnonzero(count)
    left = starts[rows]
    for nth in range(int(count.max(initial=0))):
        rest[offset[rows] + nth] = left
        left = left & (left - _ONE)
        rows, left = rows[left != 0], left[left != 0]
    cell = np.repeat(np.arange(sustain.size), count)
    start = _lowest_bit(rest)
    # A segment ends at silence, at the next start or at the end of the beat (bits 48 and above of ~sustain are set).
    stop = (~sustain | starts)[cell] >> start.astype(np.uint64) & ~_ONE
    return cell, start, _lowest_bit(stop)


def _lowest_bit(mask: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Index of the lowest set bit of each non-zero mask."""
    return np.bitwise_count((mask & (~mask + _ONE)) - _ONE).astype(np.int64)
