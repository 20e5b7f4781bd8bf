"""Results of generation: a whole piece, or one beat of a stream.

Shapes: T tokens, N notes, D bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.config import StoppingCriteria
from pianolm.generation.state import GenerationState, window_start
from pianolm.music.bars import extend_bars
from pianolm.music.beats import FRAMES
from pianolm.music.notes import NOTE_DTYPE, Notes
from pianolm.music.piece import Piece


@dataclass(frozen=True, eq=False)
class GeneratedPiece:
    """A generated piece with its tokens and timing.

    Attributes:
        ids: [T] all tokens: the prompt's, the new ones, EOS.
        piece: The music, with the prompt's beats or without.
        prompt_beats: Beats at the beginning of `piece` that are the prompt's.
        new_tokens: Number of new tokens.
        first_beat_seconds: Time from the call until the first new beat of this piece was complete.
        prompt_cut: Sentence that says that the model sees a part of the prompt only; empty where it sees all of it.
        ended_by_model: Sentence that says that the piece is shorter than asked for; empty where it is not.
    """

    ids: NDArray[np.int64]
    piece: Piece
    prompt_beats: int
    new_tokens: int
    first_beat_seconds: float
    prompt_cut: str = ""
    ended_by_model: str = ""


@dataclass(frozen=True, eq=False)
class GeneratedBeat:
    """A new beat, available as soon as it is complete. Seconds count from the start of the first new beat.

    Attributes:
        number: Number of the new beat, from 0.
        start_sec: Start of the beat.
        end_sec: Start of the next beat.
        tempo_bpm: Tempo of the beat.
        notes: [N] notes that sound in the beat, as a note array (`pianolm.music.notes.NOTE_DTYPE`), cut to the beat: a
            note that lasts to `end_sec` may go on in the next beat.
        held: [N] bool, whether the note was struck in an earlier beat and is held over into this one.
    """

    number: int
    start_sec: float
    end_sec: float
    tempo_bpm: float
    notes: Notes
    held: NDArray[np.bool_]

    @classmethod
    def from_piece(cls, piece: Piece, number: int) -> GeneratedBeat:
        """Beat `number` of a piece."""
        first, last = number * FRAMES, (number + 1) * FRAMES
        frame_notes = piece.frame_notes
        in_beat = frame_notes[(frame_notes["onset"] < last) & (frame_notes["end"] > first)]
        start_sec, end_sec = piece.beats_sec[number : number + 2].tolist()
        frame_sec = (end_sec - start_sec) / FRAMES
        notes = np.empty(in_beat.size, NOTE_DTYPE)
        notes["onset_sec"] = start_sec + (np.maximum(in_beat["onset"], first) - first) * frame_sec
        notes["offset_sec"] = start_sec + (np.minimum(in_beat["end"], last) - first) * frame_sec
        notes["pitch"], notes["velocity"] = in_beat["pitch"], in_beat["velocity"]
        order = np.lexsort((notes["pitch"], notes["onset_sec"]))
        held = in_beat["onset"] < first
        return cls(number, start_sec, end_sec, 60 / (end_sec - start_sec), notes[order], held[order])


def with_bars(piece: Piece, bars_D: NDArray[np.intp], prompt_beats: int, beats_left_out: int) -> Piece:
    """The piece with the bars of its prompt, continued at the length of the last one.

    Args:
        piece: The generated music.
        bars_D: [D] first beats of the prompt's bars, counted from the first beat that the model continues from.
        prompt_beats: Beats that the model continues from.
        beats_left_out: How many of these are not in `piece`.
    """
    bars = extend_bars(bars_D[bars_D <= prompt_beats], beats_left_out + piece.n_beats) - beats_left_out
    bars = bars[bars >= 0]
    return replace(piece, downbeats_sec=piece.beats_sec[bars]) if bars.size else piece


def prompt_cut(state: GenerationState) -> str:
    """A sentence where the model sees only a part of a piece's prompt; empty otherwise."""
    starts = state.beat_starts[: state.prompt_beats]
    first = window_start(state.prompt_tokens, starts, state.context)
    if not first:
        return ""
    seen = sum(start >= first for start in starts)
    return (
        f"the model sees the last {seen} of its {state.prompt_beats} beats: it has {state.prompt_tokens} tokens, and "
        f"the model's context is {state.context}"
    )


def ended_by_model(state: GenerationState, stopping: StoppingCriteria) -> str:
    """A sentence where a finished piece is shorter than asked for; empty otherwise."""
    if stopping.is_met(state.new_beats, state.new_seconds):
        return ""
    if stopping.seconds is None:
        length = f"beat {state.new_beats} of {stopping.beats}"
    else:
        length = f"{state.new_seconds:.1f} s of {stopping.seconds:g} s"
    return f"the model ended it at {length}; generate.end=never goes on"
