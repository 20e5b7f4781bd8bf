"""A toy `PianoLM`, and comparisons of pieces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from pianolm import PianoLM, Piece
from pianolm.generation.results import GeneratedBeat
from pianolm.music.notes import Notes, make_notes
from tests.toy_lm import CONTEXT, toy_llama, toy_tokenizer

HOT: dict[str, Any] = {"temperature": 2.0, "top_p": 1.0}


def toy_lm(mode: str = "velocity", context: int = CONTEXT, **options: Any) -> PianoLM:
    tokenizer = toy_tokenizer(mode, **options)
    return PianoLM(toy_llama(tokenizer.vocabulary, max_position_embeddings=context), tokenizer)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """Pieces with rubato or one tempo, with and without bars and an upbeat; notes overlap, and some are doubled."""
    n_beats = draw(st.integers(2, 8))
    tempo_sec = st.floats(0.2, 2.0)
    lengths = draw(
        st.lists(tempo_sec, min_size=n_beats, max_size=n_beats) | tempo_sec.map(lambda s: [s] * n_beats)
    )
    beats_sec = draw(st.sampled_from([0.0, -0.3, 7.1])) + np.concatenate([[0.0], np.cumsum(lengths)])
    place, length = st.floats(0, n_beats - 0.05), st.floats(0, 3)
    rows = draw(
        st.lists(st.tuples(place, length, st.integers(58, 64), st.integers(1, 127)), min_size=1, max_size=20)
    )
    rows += rows[: draw(st.integers(0, 3))]
    at, lasts, pitch, velocity = (np.array(column) for column in zip(*rows, strict=True))
    onset, end = (np.interp(t, np.arange(n_beats + 1), beats_sec) for t in (at, at + lasts))
    upbeat, bar = draw(st.integers(0, 3)), draw(st.sampled_from([None, 2, 3, 4]))
    downbeats_sec = None if bar is None else beats_sec[upbeat::bar]
    return replace(
        Piece.from_notes(make_notes(onset, end, pitch, velocity), beats_sec), downbeats_sec=downbeats_sec
    )


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
