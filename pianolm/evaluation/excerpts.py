"""Excerpts of pieces: the prompt that a model continues and the beats that follow it, in bars."""

from __future__ import annotations

import numpy as np

from pianolm.music import bars
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes, frames_to_cells
from pianolm.music.piece import Piece


def within(notes: FrameNotes, first: int, last: int) -> FrameNotes:
    """The notes struck in beats `first` to `last` − 1."""
    return notes[(notes["onset"] >= first * FRAMES) & (notes["onset"] < last * FRAMES)]


def cut(piece: Piece, first: int, last: int) -> Piece:
    """The notes struck in beats `first` to `last` − 1, on frames; those that sound on end with the last beat.

    The excerpt begins at 0 s.
    """
    notes = within(piece.frame_notes, first, last).copy()
    notes["end"] = np.minimum(notes["end"], last * FRAMES) - first * FRAMES
    notes["onset"] -= first * FRAMES
    starts = piece.bar_starts[(piece.bar_starts >= first) & (piece.bar_starts <= last)] - first
    beats_sec = piece.beats_sec[first : last + 1] - piece.beats_sec[first]
    return Piece.from_cells(frames_to_cells(notes, last - first), beats_sec, piece.flat, bar_starts=starts)


def opening(piece: Piece, beats: int) -> Piece | None:
    """The first beats of a piece from a bar line on.

    It begins with the first bar that starts with the first note or after it, so that an upbeat is left out, or with the
    beat of the first note where no bars are known.

    Args:
        piece: The music.
        beats: Length of the excerpt.

    Returns:
        The excerpt; None if the piece has no notes or too few beats.
    """
    if not piece.frame_notes.size:
        return None
    first = int(piece.frame_notes["onset"].min()) // FRAMES
    known = piece.bar_starts
    starts = known[known >= first] if known.size else np.array([first])
    if not starts.size or starts[0] + beats > piece.n_beats:
        return None
    return cut(piece, int(starts[0]), int(starts[0]) + beats)


def bar_length(piece: Piece, beats: int) -> int | None:
    """Most frequent number of beats of the bars in the first beats of a piece; None if no complete bar is known."""
    return bars.bar_length(piece.bar_starts[piece.bar_starts <= beats])
