"""Parts of pieces, and pieces with a new part after them, in which given notes and beats keep their exact times.

Shapes: N notes, B beats, D bars.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import frames_to_seconds, resolve_notes, seconds_to_frames
from pianolm.music.notes import NOTE_DTYPE, Notes, sort_notes
from pianolm.music.piece import Piece


def part_of_piece(piece: Piece, first: int, last: int) -> Piece:
    """The beats `first` to `last` − 1 of a piece, with the notes that begin in them.

    A note belongs to the beat of the frame it begins in. It ends with the part at the latest. A note that is held over
    beat `first` begins there. Times stay as they are where `first` is 0, otherwise the part moves to 0 s.
    """
    if (first, last) == (0, piece.n_beats):
        return piece
    start_sec, end_sec = piece.beats_sec[first], piece.beats_sec[last]
    onset_frame = _onset_frames(piece.notes, piece.beats_sec)
    notes = piece.notes[(onset_frame >= first * FRAMES) & (onset_frame < last * FRAMES)]
    if first:
        notes = np.concatenate([_held_over(piece, first), notes])
    notes["offset_sec"] = np.maximum(np.minimum(notes["offset_sec"], end_sec), notes["onset_sec"])
    shift_sec = start_sec if first else 0.0
    notes["onset_sec"] -= shift_sec
    notes["offset_sec"] -= shift_sec
    beats_sec = piece.beats_sec[first : last + 1] - shift_sec
    bars = piece.bar_starts[(piece.bar_starts >= first) & (piece.bar_starts <= last)] - first
    return replace(
        piece, notes=sort_notes(notes), beats_sec=beats_sec, downbeats_sec=_downbeats(beats_sec, bars)
    )


def continued_piece(prompt: Piece, generated: Piece) -> Piece:
    """The notes, beats and bars of a prompt exactly as they are, and the new part of a generated piece after them.

    The new part begins at the end of the prompt's last beat. A note of the prompt that reaches this seam is prolonged
    where the new part goes on with it.

    Args:
        prompt: What the generated piece begins with.
        generated: A piece whose first beats are those of the prompt as tokens represent them.
    """
    seam = prompt.n_beats
    new_beats_sec = generated.beats_sec[seam + 1 :] - generated.beats_sec[seam]
    beats_sec = np.concatenate([prompt.beats_sec, prompt.beats_sec[-1] + new_beats_sec])
    frame_notes = generated.frame_notes
    is_new = frame_notes["onset"] >= seam * FRAMES
    is_held = ~is_new & (frame_notes["end"] > seam * FRAMES)
    kept = prompt.notes.copy()
    held = frame_notes[is_held]
    joined = _prolong(kept, held["pitch"], frames_to_seconds(held["end"], beats_sec), prompt.beats_sec)
    new = np.concatenate([frame_notes[is_new], held[~joined]])
    added = np.empty(new.size, NOTE_DTYPE)
    added["onset_sec"] = frames_to_seconds(np.maximum(new["onset"], seam * FRAMES), beats_sec)
    added["offset_sec"] = frames_to_seconds(new["end"], beats_sec)
    added["pitch"], added["velocity"] = new["pitch"], new["velocity"]
    last = seam - 1 if new_beats_sec.size else seam  # the bar that begins at the seam is the new part's
    bars = np.concatenate(
        [prompt.bar_starts[prompt.bar_starts <= last], generated.bar_starts[generated.bar_starts > last]]
    )
    return Piece(
        notes=sort_notes(np.concatenate([kept, added])),
        beats_sec=beats_sec,
        flat=generated.flat,
        downbeats_sec=_downbeats(beats_sec, bars),
        skipped=generated.skipped,
    )


def _prolong(
    notes: Notes, pitch: NDArray[np.uint8], end_sec: NDArray[np.float64], beats_sec: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Moves the ends of notes that last to the end of their grid and go on after it.

    Args:
        notes: [N] changed in place. Of several notes of a pitch the last struck ones are prolonged.
        pitch: [H] pitches that go on, each once.
        end_sec: [H] when they end.
        beats_sec: [B + 1] grid of the notes.

    Returns:
        [H] whether there is such a note.
    """
    onset = _onset_frames(notes, beats_sec)
    end = np.maximum(seconds_to_frames(notes["offset_sec"], beats_sec), onset + 1)
    lasts = end >= (beats_sec.size - 1) * FRAMES
    found = np.zeros(pitch.size, bool)
    for number in range(pitch.size):
        candidates = np.flatnonzero(lasts & (notes["pitch"] == pitch[number]))
        if candidates.size:
            last_struck = candidates[onset[candidates] == onset[candidates].max()]
            notes["offset_sec"][last_struck] = end_sec[number]
            found[number] = True
    return found


def _held_over(piece: Piece, beat: int) -> Notes:
    """The notes that sound across the start of a beat, begun there."""
    resolved, frame_notes = resolve_notes(piece.notes, piece.beats_sec)
    across = (frame_notes["onset"] < beat * FRAMES) & (frame_notes["end"] > beat * FRAMES)
    held = resolved[across]
    held["onset_sec"] = piece.beats_sec[beat]
    return held


def _onset_frames(notes: Notes, beats_sec: NDArray[np.float64]) -> NDArray[np.int64]:
    """[N] frames in which notes begin, all of them inside the grid."""
    frames = seconds_to_frames(notes["onset_sec"], beats_sec)
    return np.clip(frames, 0, (beats_sec.size - 1) * FRAMES - 1)


def _downbeats(beats_sec: NDArray[np.float64], bars: NDArray[np.intp]) -> NDArray[np.float64] | None:
    return beats_sec[bars] if bars.size else None
