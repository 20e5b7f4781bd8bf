"""The choice of a bar that shows how patterns are coded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.data.example_bar import Bar, bars, choose_bar
from pianolm.music.cells import Cells, frames_to_cells, resolve_collisions
from tests.report.toys import beat_times, fitted_codebook, random_cells


def write_store(directory: Path, pieces: list[tuple[str, Cells, int | None]]) -> CellStore:
    """A store of training pieces of a kind, with a downbeat every n beats from the second on."""
    with CellStoreWriter(directory) as writer:
        for number, (kind, cells, every) in enumerate(pieces):
            beat = np.arange(cells.n_beats + 1)
            known = (beat % every == 1).astype(np.int8) if every else np.full(beat.size, -1, np.int8)
            counts = (cells.struck_notes, len(cells), cells.n_beats, cells.segment_velocity.size)
            row = PieceRow(str(number), "toy", str(number), "train", kind, False, "none", "x.mid", *counts)
            writer.add(row, cells, beat_times(cells.n_beats), known)
    return CellStore.open(directory)


def test_the_bar_is_the_same_every_time_and_starts_on_a_downbeat(tmp_path: Path) -> None:
    pieces = [
        ("score", random_cells(5), 4),
        ("performance", random_cells(6), 3),
        ("score", random_cells(7), 4),
    ]
    store = write_store(tmp_path / "cells", pieces)
    bar = choose_bar(store, fitted_codebook())
    assert bar == choose_bar(CellStore.open(tmp_path / "cells"), fitted_codebook())
    assert (bar.piece, bar.first_beat % 3, bar.n_beats) == (1, 1, 3)


def test_a_bar_is_found_where_downbeats_are_missing_or_come_after_the_notes(tmp_path: Path) -> None:
    unknown = choose_bar(write_store(tmp_path / "a", [("score", random_cells(8), None)]), fitted_codebook())
    assert unknown.first_beat % 4 == 0
    first_beat_only = frames_to_cells(
        resolve_collisions(
            np.array([3]), np.array([9]), np.array([60], np.uint8), np.array([70], np.uint8), 96
        )[0],
        2,
    )
    store = write_store(tmp_path / "b", [("score", first_beat_only, 2)])
    assert choose_bar(store, fitted_codebook()) == Bar(0, 0, 2)
    assert bars(np.array([1, 4, 10]), 10) == [(1, 3), (4, 4)]
