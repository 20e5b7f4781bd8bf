"""The cell store: write and read piece by piece and joined; errors of incomplete or damaged stores."""

from __future__ import annotations

import contextlib
import json
import pickle
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.errors import UserError
from pianolm.music.cells import Cells
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

LAYOUT = [("train", False), ("train", True), ("train", False), ("validation", False), ("test", True)]


def random_piece(seed: int, notes: int = 60) -> Piece:
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, 10, notes)
    made = make_notes(
        onset, onset + rng.uniform(0, 2, notes), rng.integers(0, 128, notes), rng.integers(1, 128, notes)
    )
    return Piece.from_notes(made, np.arange(0, 10, 0.7))


def row_of(piece: Piece, name: str, split: str, flat: bool = False) -> PieceRow:
    cells = piece.cells
    counts = (cells.struck_notes, len(cells), piece.n_beats, cells.segment_velocity.size)
    return PieceRow(
        f"s/{name}", "s", f"c/{name}", split, "performance", flat, "CC, “0”", f"{name}.mid", *counts
    )


def write_store(directory: Path, layout: Sequence[tuple[str, bool]] = LAYOUT) -> list[Piece]:
    pieces = [random_piece(seed) for seed in range(len(layout))]
    with CellStoreWriter(directory) as store:
        for seed, (piece, (split, flat)) in enumerate(zip(pieces, layout, strict=True)):
            downbeat = np.arange(piece.n_beats + 1) % 3 - 1
            store.add(
                row_of(piece, str(seed), split, flat), piece.cells, piece.beats_sec, downbeat.astype(np.int8)
            )
    return pieces


def assert_same_cells(ours: Cells, theirs: Cells) -> None:
    for name in ("beat", "pitch", "sustain", "onset", "segment_velocity"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    assert ours.n_beats == theirs.n_beats


def test_pieces_are_read_as_written(tmp_path: Path) -> None:
    pieces = write_store(tmp_path)
    store = CellStore.open(tmp_path)
    assert len(store) == len(pieces)
    assert [store.split(name) for name in ("train", "validation", "test")] == [[0, 1, 2], [3], [4]]
    for index, piece in enumerate(pieces):
        assert store.pieces[index] == row_of(piece, str(index), *LAYOUT[index])
        assert_same_cells(store.cells(index), piece.cells)
        np.testing.assert_array_equal(store.beats_sec(index), piece.beats_sec)
        np.testing.assert_array_equal(store.downbeat(index), np.arange(piece.n_beats + 1) % 3 - 1)
        assert store.bar_starts(index).tolist() == list(range(2, piece.n_beats + 1, 3))
        assert store.flat(index) == LAYOUT[index][1]


@pytest.mark.parametrize("indices", [[0, 1, 2], [0, 2], [4, 0, 3], [3], []])
def test_joined_pieces_are_their_cells_in_turn(tmp_path: Path, indices: list[int]) -> None:
    pieces = write_store(tmp_path)
    store = CellStore.open(tmp_path)
    joined = store.joined(indices)
    assert joined.n_beats == sum(pieces[i].n_beats for i in indices)
    beat, cell, segment = 0, 0, 0
    for i in indices:
        part = pieces[i].cells
        cells = slice(cell, cell + len(part))
        np.testing.assert_array_equal(joined.beat[cells], part.beat + beat)
        np.testing.assert_array_equal(joined.sustain[cells], part.sustain)
        velocity = joined.segment_velocity[segment : segment + part.segment_velocity.size]
        np.testing.assert_array_equal(velocity, part.segment_velocity)
        beat, cell, segment = beat + part.n_beats, cell + len(part), segment + part.segment_velocity.size
    assert len(joined) == cell
    assert joined.segment_offset[-1] == segment


def test_a_whole_split_is_mapped_and_not_copied(tmp_path: Path) -> None:
    write_store(tmp_path)
    store = CellStore.open(tmp_path)
    whole, one = store.joined(store.split("train")), store.cells(1)
    assert np.shares_memory(whole.sustain, one.sustain)
    assert np.shares_memory(whole.segment_velocity, one.segment_velocity)
    with pytest.raises(ValueError, match="read-only"):
        whole.sustain[0] = 0


def test_arrays_open_without_the_store(tmp_path: Path) -> None:
    write_store(tmp_path)
    loaded = np.load(tmp_path / "sustain.npy")
    np.testing.assert_array_equal(loaded, CellStore.open(tmp_path).joined(range(len(LAYOUT))).sustain)


def test_a_store_is_pickled_as_its_path(tmp_path: Path) -> None:
    write_store(tmp_path)
    sent = pickle.dumps(CellStore.open(tmp_path))
    assert len(sent) < 500
    assert pickle.loads(sent).pieces == CellStore.open(tmp_path).pieces


def test_memory_does_not_grow_with_the_pieces(tmp_path: Path) -> None:
    piece = random_piece(0, notes=5000)
    row, downbeat = row_of(piece, "x", "train"), np.full(piece.n_beats + 1, -1, np.int8)
    tracemalloc.start()
    try:
        with CellStoreWriter(tmp_path) as store:
            store.add(row, piece.cells, piece.beats_sec, downbeat)
            after_one = tracemalloc.get_traced_memory()[0]
            for _ in range(50):
                store.add(row, piece.cells, piece.beats_sec, downbeat)
            assert tracemalloc.get_traced_memory()[0] - after_one < 2 * piece.cells.sustain.nbytes
    finally:
        tracemalloc.stop()
    assert (tmp_path / "sustain.npy").stat().st_size > 50 * piece.cells.sustain.nbytes


def test_an_empty_store_opens(tmp_path: Path) -> None:
    write_store(tmp_path, [])
    store = CellStore.open(tmp_path)
    assert (len(store), store.split("train"), len(store.joined([]))) == (0, [], 0)


def test_an_interrupted_store_does_not_open(tmp_path: Path) -> None:
    piece = random_piece(0)
    with contextlib.suppress(KeyboardInterrupt), CellStoreWriter(tmp_path) as store:
        downbeat = np.zeros(piece.n_beats + 1, np.int8)
        store.add(row_of(piece, "x", "train"), piece.cells, piece.beats_sec, downbeat)
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"no store\.json, so this is no complete store of pianolm cells"):
        CellStore.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["not json", "[]", '{"format": "other", "version": 1}', '{"format": "pianolm cells", "version": 99}'],
)
def test_another_format_is_one_sentence(tmp_path: Path, content: str) -> None:
    write_store(tmp_path)
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(UserError, match="found, expected pianolm cells of version 1"):
        CellStore.open(tmp_path)


@pytest.mark.parametrize("name", ["sustain", "segment_velocity", "beats_sec", "downbeat"])
def test_a_damaged_store_is_one_sentence(tmp_path: Path, name: str) -> None:
    write_store(tmp_path)
    path = tmp_path / f"{name}.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(UserError, match=f"{name}.npy: truncated or damaged"):
        CellStore.open(tmp_path)
    np.save(path, np.load(pad(path, whole))[:-1])
    with pytest.raises(UserError, match=f"{name}.npy: .* values found, expected .* as pieces.csv says"):
        CellStore.open(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}.npy: missing from the store"):
        CellStore.open(tmp_path)


def pad(path: Path, content: bytes) -> Path:
    """Writes the content back."""
    path.write_bytes(content)
    return path


def test_the_writer_asserts_order_and_sizes(tmp_path: Path) -> None:
    piece = random_piece(0)
    downbeat = np.zeros(piece.n_beats + 1, np.int8)
    with CellStoreWriter(tmp_path) as store:
        store.add(row_of(piece, "a", "test"), piece.cells, piece.beats_sec, downbeat)
        with pytest.raises(AssertionError):
            store.add(row_of(piece, "b", "train"), piece.cells, piece.beats_sec, downbeat)
        with pytest.raises(AssertionError):
            store.add(row_of(piece, "b", "test"), piece.cells, piece.beats_sec[:-1], downbeat)
    marker = json.loads((tmp_path / "store.json").read_text())
    assert marker["pieces"] == 1
