"""Small music with dynamics that follow from the notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.data.reading import downbeat_flags
from pianolm.dynamics.module import DynamicsSettings
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

OPTIONS: dict[str, Any] = {"width": 32, "layers": 1, "batch_windows": 2, "max_steps": 4, "lr": 0.01}
"""The options `dynamics` of a model that trains in seconds."""

SETTINGS = DynamicsSettings(width=32, layers=1, lr=0.01, max_steps=4, dropout=0.0, warmup_steps=1)


def played(n_bars: int = 12, seed: int = 0, level: int = 60) -> Piece:
    """Chords of three on every beat of bars of three, the highest note loudest, the first beat louder."""
    rng = np.random.default_rng(seed)
    beat = np.repeat(np.arange(3 * n_bars), 3)
    voice = np.tile(np.arange(3), 3 * n_bars)
    pitch = 48 + 12 * voice + rng.integers(0, 10, beat.size)
    velocity = level + 10 * (voice == 2) + 8 * (beat % 3 == 0) + rng.integers(-2, 3, beat.size)
    beats_sec = 0.5 * np.arange(3 * n_bars + 1)
    notes = make_notes(0.5 * beat, 0.5 * beat + 0.4, pitch, velocity)
    return Piece.from_notes(notes, BeatAnnotation(beats_sec, np.arange(beats_sec.size) % 3 == 0))


def make_store(directory: Path, splits: list[str], flat: bool = False) -> CellStore:
    """A store of such music, a piece for each of the splits."""
    with CellStoreWriter(directory) as writer:
        for i, split in enumerate(splits):
            piece = played(12 + i, seed=i, level=50 + 5 * i)
            row = PieceRow(
                id=f"x/{i}",
                source="x",
                composition=str(i),
                split=split,
                kind="performance",
                flat=flat,
                licence="none",
                path=f"{i}.mid",
                notes=piece.cells.struck_notes,
                cells=len(piece.cells),
                beats=piece.n_beats,
                segments=piece.cells.segment_velocity.size,
            )
            writer.add(row, piece.cells, piece.beats_sec, downbeat_flags(piece))
    return CellStore.open(directory)
