"""A toy `PianoLM`, and comparisons of pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pianolm import PianoLM, Piece
from pianolm.generation.results import GeneratedBeat
from pianolm.music.notes import Notes, make_notes
from tests.toy_lm import CONTEXT, toy_llama, toy_tokenizer

HOT: dict[str, Any] = {"temperature": 2.0, "top_p": 1.0}


def toy_lm(mode: str = "velocity", context: int = CONTEXT, **options: Any) -> PianoLM:
    tokenizer = toy_tokenizer(mode, **options)
    return PianoLM(toy_llama(tokenizer.vocabulary, max_position_embeddings=context), tokenizer)


def frames(piece: Piece, beats: slice = slice(None)) -> list[tuple[int, ...]]:
    """Onset, end and pitch of the notes that begin in some beats."""
    first, last, _ = beats.indices(piece.n_beats)
    notes = piece.frame_notes
    notes = notes[(notes["onset"] >= first * 48) & (notes["onset"] < last * 48)]
    return [(int(n["onset"]) - first * 48, int(n["end"]) - first * 48, int(n["pitch"])) for n in notes]


def same(a: Piece, b: Piece) -> bool:
    return np.array_equal(a.notes, b.notes) and np.array_equal(a.beats_sec, b.beats_sec)


def join(beats: list[GeneratedBeat]) -> Notes:
    """The notes of beats one after the other."""
    rows: list[list[Any]] = []
    for beat in beats:
        for note, held in zip(beat.notes, beat.held, strict=True):
            if held:
                row = next(row for row in reversed(rows) if row[2] == note["pitch"])
                assert row[1] == pytest.approx(beat.start_sec)
                row[1] = note["offset_sec"]
            else:
                rows.append(list(note))
    return make_notes(*zip(*rows, strict=True))
