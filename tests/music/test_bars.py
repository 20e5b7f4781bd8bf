"""Bars on a grid: bar starts ↔ the position of every beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm import Piece
from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.data.reading import downbeat_flags
from pianolm.music.bars import UNKNOWN, bar_positions, bar_starts, bar_starts_from_positions, extend_bars
from pianolm.music.beats import BeatAnnotation
from pianolm.music.cells import Cells
from pianolm.music.notes import make_notes


@pytest.mark.parametrize(
    ("starts", "n_beats", "expected"),
    [
        ([0, 4], 9, [1, 2, 3, 4, 1, 2, 3, 4, 5]),
        ([1, 4, 7], 9, [3, 1, 2, 3, 1, 2, 3, 1, 2]),  # an upbeat
        ([5, 8, 12], 13, [2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 1]),  # a grid that was extended, a longer bar
        ([2], 5, [UNKNOWN, UNKNOWN, 1, 2, 3]),  # the length of a bar is unknown
        ([2, 5], 5, [UNKNOWN, UNKNOWN, 1, 2, 3]),  # the end of the grid is no beat
        ([0], 3, [1, 2, 3]),
        ([], 3, [UNKNOWN] * 3),
        ([0, 10], 12, [*range(1, 11), 1, 2]),
        ([], 0, []),
        ([0], 0, []),
    ],
)
def test_beats_are_counted_from_bar_to_bar(starts: list[int], n_beats: int, expected: list[int]) -> None:
    assert bar_positions(np.array(starts, np.intp), n_beats).tolist() == expected


@given(st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_positions_keep_bar_starts_and_converting_again_changes_nothing(
    starts: set[int], n_beats: int
) -> None:
    known = np.array(sorted(starts), np.intp)
    position = bar_positions(known, n_beats)
    found = bar_starts_from_positions(position)
    on_grid = known[known < n_beats]
    assert position.shape == (n_beats,)
    assert np.array_equal(found[found >= on_grid.min(initial=n_beats)], on_grid)
    assert np.array_equal(bar_positions(found, n_beats), position)
    steps = np.diff(position)[position[:-1] != UNKNOWN]
    assert ((steps == 1) | (position[1:][position[:-1] != UNKNOWN] == 1)).all(), "up by one, or a new bar"


def test_downbeats_lie_on_the_nearest_beats_of_the_grid() -> None:
    beats_sec = np.array([0.0, 1.0, 3.0, 4.0])
    assert bar_starts(beats_sec, np.array([0.4, 2.1, 4.0])).tolist() == [0, 2, 3]
    assert bar_starts(beats_sec, np.array([-1.0, 0.9, 1.1, 9.0])).tolist() == [1]
    assert bar_starts(beats_sec, None).size == bar_starts(beats_sec, np.zeros(0)).size == 0


def annotated(beats_sec: list[float], down: list[int], last_sec: float) -> Piece:
    """A piece of two notes, at 0.1 s and at `last_sec`, on annotated beats."""
    downbeat = np.zeros(len(beats_sec), bool)
    downbeat[down] = True
    notes = make_notes([0.1, last_sec], [0.6, last_sec + 0.2], [60, 62], [50, 60])
    return Piece.from_notes(notes, BeatAnnotation(np.array(beats_sec), downbeat))


def test_inserted_beats_are_counted_and_merged_downbeats_are_kept() -> None:
    piece = annotated([0, 1, 2, 10, 11, 11.05, 12], [0, 3, 5], 12.5)
    assert piece.beats_sec.tolist() == [0, 1, 2, 6, 10, 11, 12, 13]
    assert piece.bar_starts.tolist() == [0, 4, 5]  # the gap is cut in two, 11.05 is the beat at 11
    assert bar_positions(piece.bar_starts, piece.n_beats).tolist() == [1, 2, 3, 4, 1, 1, 2]


def store_of(piece: Piece, directory: Path) -> CellStore:
    cells = piece.cells
    counts = (cells.struck_notes, len(cells), piece.n_beats, cells.segment_velocity.size)
    with CellStoreWriter(directory) as store:
        row = PieceRow("a", "toy", "toy", "train", "performance", False, "", "a.mid", *counts)
        store.add(row, cells, piece.beats_sec, downbeat_flags(piece))
    return CellStore.open(directory)


@pytest.mark.parametrize("down", [[0, 3], [2, 4, 6], [5], [7], [], list(range(8))])
def test_a_store_has_the_bars_of_the_piece(down: list[int], tmp_path: Path) -> None:
    """Includes extended grids, single downbeats and a downbeat merged into the end of the grid."""
    piece = annotated([1, 2, 3, 4, 5, 6, 7, 7.05], down, 6.5)
    store = store_of(piece, tmp_path)
    positions = [bar_positions(starts, piece.n_beats) for starts in (store.bar_starts(0), piece.bar_starts)]
    assert np.array_equal(*positions)
    assert positions[0].any() == bool(set(down) - {7})


def test_a_piece_on_other_beats_keeps_its_notes_and_bars() -> None:
    piece = annotated([0, 1, 2, 3, 4, 5], [1, 4], 4.5)
    moved = piece.on_beats(np.arange(piece.n_beats + 1) * 0.5)
    assert np.array_equal(moved.frame_notes, piece.frame_notes)
    assert np.array_equal(moved.bar_starts, piece.bar_starts)
    assert moved.downbeats_sec is not None
    assert moved.downbeats_sec.tolist() == [0.5, 2.0]
    nothing = Cells(*(np.zeros(0, kind) for kind in ("i4", "u1", "u8", "u8", "u1")), n_beats=2)
    assert Piece.from_cells(nothing, np.arange(3.0)).downbeats_sec is None


def test_real_annotations_give_bars_all_along(shared_data: Path) -> None:
    """Nearly every beat has a known position in its bar, and bars have usual lengths."""
    paths = sorted(shared_data.glob("asap/*/**/[A-Z]*.mid"))[::60]
    paths += sorted(shared_data.glob("pop909/POP909/*/*.mid"))[::100]
    known = usual = beats = bars = 0
    for path in paths:
        beside = "beat_midi.txt" if "POP909" in path.parts else f"{path.stem}_annotations.txt"
        piece = Piece.from_midi(path, beats=path.with_name(beside))
        position = bar_positions(piece.bar_starts, piece.n_beats)
        lengths = np.diff(bar_starts_from_positions(position))
        known, beats = known + int((position != UNKNOWN).sum()), beats + position.size
        usual, bars = usual + int(((lengths >= 1) & (lengths <= 8)).sum()), bars + lengths.size
    assert len(paths) > 10
    assert known > 0.99 * beats
    assert usual > 0.95 * bars


@pytest.mark.parametrize(
    ("starts", "beats", "expected"),
    [
        ([0, 4], 12, [0, 4, 8, 12]),
        ([1, 5, 8], 15, [1, 5, 8, 11, 14]),
        ([3], 9, [3]),
        ([], 9, []),
        ([0, 4], 5, [0, 4]),
    ],
)
def test_bars_are_extended_in_the_length_of_the_last_one(
    starts: list[int], beats: int, expected: list[int]
) -> None:
    assert extend_bars(np.array(starts, np.intp), beats).tolist() == expected
