"""Small music for the tests of the beat tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pianolm.beat_tracking.module import BeatSettings
from pianolm.data.beat_notes import BeatNotes
from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.data.reading import downbeat_flags
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

OPTIONS: dict[str, Any] = {"width": 16, "batch_excerpts": 4, "max_steps": 4, "lr": 0.01}
"""The options `beats` of a tracker that trains in seconds."""

SETTINGS = BeatSettings(width=16, lr=0.01, max_steps=4, levels=5, stacks=1, dropout=0.0, warmup_steps=1)


def waltz(n_bars: int = 16, is_score: bool = True, with_bars: bool = True) -> BeatNotes:
    """Chords of three notes on every beat, a low one on the first of three, and a tune in halves of beats."""
    n_beats = 3 * n_bars
    beat = np.arange(n_beats)
    rows = [(b, b + 1.0, 36 if b % 3 == 0 else 60) for b in beat]
    rows += [(b, b + 0.9, pitch) for b in beat for pitch in (64, 67)]
    rows += [(b / 2, b / 2 + 0.5, 72 + b % 5) for b in range(2 * n_beats)]
    onset, end, pitch = np.array(sorted((o, p, e) for o, e, p in rows))[:, [0, 2, 1]].T
    return BeatNotes(
        onset_beat=onset,
        end_beat=end,
        pitch=pitch.astype(np.int64),
        velocity=np.full(onset.size, 64),
        beats_sec=0.5 * np.arange(n_beats + 1),
        bar_start=np.arange(0, n_beats, 3) if with_bars else np.zeros(0, np.intp),
        is_score=is_score,
    )


def make_store(directory: Path, splits: list[str], beat_confidence: float | None = None) -> CellStore:
    """A store of waltzes of growing length, one for each of the splits."""
    with CellStoreWriter(directory) as writer:
        for i, split in enumerate(splits):
            music = waltz(12 + i)
            notes = make_notes(
                music.seconds(music.onset_beat), music.seconds(music.end_beat), music.pitch, music.velocity
            )
            downbeat = np.arange(music.beats_sec.size) % 3 == 0
            piece = Piece.from_notes(notes, BeatAnnotation(music.beats_sec, downbeat))
            cells = piece.cells
            row = PieceRow(
                id=f"x/{i}",
                source="x",
                composition=str(i),
                split=split,
                kind="score",
                flat=True,
                licence="none",
                path=f"{i}.mid",
                notes=cells.struck_notes,
                cells=len(cells),
                beats=piece.n_beats,
                segments=cells.segment_velocity.size,
                beat_confidence=beat_confidence,
            )
            writer.add(row, cells, piece.beats_sec, downbeat_flags(piece))
    return CellStore.open(directory)
