"""What generating gives: a whole piece, or beat after beat.

Shapes: T tokens, N notes, D bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pianolm.music.bars import extend_bars
from pianolm.music.beats import FRAMES
from pianolm.music.notes import NOTE_DTYPE, Notes
from pianolm.music.piece import Piece


@dataclass(frozen=True, eq=False)
class Take:
    """One piece generated, and how it came about.

    Attributes:
        ids: [T] all its tokens: the prompt's, the new ones, EOS.
        piece: The music asked for: with the prompt's beats, or without.
        prompt_beats: Beats at the beginning of `piece` that are the prompt's.
        new_tokens: Tokens that were drawn.
        first_beat_seconds: From the call until the first new beat of this piece was complete.
    """

    ids: NDArray[np.int64]
    piece: Piece
    prompt_beats: int
    new_tokens: int
    first_beat_seconds: float


@dataclass(frozen=True, eq=False)
class Beat:
    """A new beat, as soon as it is complete. Seconds count from the start of the first new beat.

    Attributes:
        number: Of the new beats, from 0.
        start_sec: Where it begins.
        end_sec: Where the next one begins.
        tempo_bpm: Its tempo.
        notes: [N] what sounds in it, as a note array (`pianolm.music.notes.NOTE_DTYPE`) cut to the beat: a note that
            lasts to `end_sec` may go on in the next beat.
        held: [N] bool, whether the note was struck in an earlier beat and goes on here.
    """

    number: int
    start_sec: float
    end_sec: float
    tempo_bpm: float
    notes: Notes
    held: NDArray[np.bool_]

    @classmethod
    def of(cls, piece: Piece, number: int) -> Beat:
        """A beat of a piece that ends with it."""
        first, last = number * FRAMES, (number + 1) * FRAMES
        frame_notes = piece.frame_notes
        here = frame_notes[(frame_notes["onset"] < last) & (frame_notes["end"] > first)]
        start_sec, end_sec = piece.beats_sec[number : number + 2].tolist()
        frame_sec = (end_sec - start_sec) / FRAMES
        notes = np.empty(here.size, NOTE_DTYPE)
        notes["onset_sec"] = start_sec + (np.maximum(here["onset"], first) - first) * frame_sec
        notes["offset_sec"] = start_sec + (np.minimum(here["end"], last) - first) * frame_sec
        notes["pitch"], notes["velocity"] = here["pitch"], here["velocity"]
        order = np.lexsort((notes["pitch"], notes["onset_sec"]))
        held = here["onset"] < first
        return cls(number, start_sec, end_sec, 60 / (end_sec - start_sec), notes[order], held[order])


def beats_left_out(prompt: Piece, prompt_beats: int | None) -> int:
    """How many first beats of a prompt are not gone on from: `prompt_beats` below 0 keeps so many last ones."""
    return max(prompt.n_beats + prompt_beats, 0) if prompt_beats is not None and prompt_beats < 0 else 0


def prompt_bars(prompt: Piece | None, prompt_beats: int | None) -> NDArray[np.intp]:
    """[D] where the known bars of a prompt begin, in beats from the first one that is gone on from."""
    if prompt is None:
        return np.zeros(0, np.intp)
    return prompt.bar_starts - beats_left_out(prompt, prompt_beats)


def with_bars(piece: Piece, bars_D: NDArray[np.intp], prompt_beats: int, left_out: int) -> Piece:
    """The piece with the bars of its prompt, which go on; `left_out` beats of the prompt are not in it."""
    bars = extend_bars(bars_D[bars_D <= prompt_beats], left_out + piece.n_beats) - left_out
    bars = bars[bars >= 0]
    return replace(piece, downbeats_sec=piece.beats_sec[bars]) if bars.size else piece
