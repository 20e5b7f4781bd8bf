"""Small cell stores, caches and options for the tests of the velocity codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece

MidiFile = Callable[..., Path]
DYNAMIC, FLAT = None, 64


def make_store(directory: Path, midi_file: MidiFile, pieces: Sequence[tuple[str, int | None]]) -> CellStore:
    """A store of small pieces, each given as (split, constant velocity or None)."""
    with CellStoreWriter(directory) as writer:
        for i, (split, velocity) in enumerate(pieces):
            piece = Piece.from_midi(midi_file(directory / f"{i}.mid", seed=i, velocity=velocity))
            cells = piece.cells
            row = PieceRow(
                id=f"x/{i}",
                source="x",
                composition=str(i),
                split=split,
                kind="performance",
                flat=piece.flat,
                licence="none",
                path=f"{i}.mid",
                notes=cells.struck_notes,
                cells=len(cells),
                beats=piece.n_beats,
                segments=cells.segment_velocity.size,
            )
            writer.add(row, cells, piece.beats_sec, np.full(piece.beats_sec.size, -1, np.int8))
    return CellStore.open(directory)


def velvq_config(**changes: Any) -> dict[str, Any]:
    return {
        "form": "frame",
        "codebook_size": 8,
        "batch_cells": 16,
        "max_steps": 5,
        "val_cells": None,
        "seed": 0,
        **changes,
    }


def two_note_cells(n_cells: int, seed: int = 0) -> Cells:
    """Cells of two notes, half a beat each, with 24 different pairs of velocities."""
    rng = np.random.default_rng(seed)
    sustain = np.full(n_cells, (1 << 48) - 1, np.uint64)
    onset = np.full(n_cells, 1 | 1 << 24, np.uint64)
    pairs = rng.integers(20, 110, (24, 2)).astype(np.uint8)
    velocity = pairs[rng.integers(0, 24, n_cells)].ravel()
    return Cells(
        np.arange(n_cells, dtype=np.int32), np.full(n_cells, 60, np.uint8), sustain, onset, velocity, n_cells
    )
