"""The cache of cells and the batches drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.errors import UserError
from pianolm.music.cells import frame_velocity
from pianolm.music.piece import Piece
from pianolm.tokenizer.velocity.frame import resample
from pianolm.velvq.datamodule import (
    CellCache,
    FrameBatches,
    SegmentBatches,
    ValidationBatches,
    VelVQDataModule,
    build_cache,
    segment_tables,
)

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


@pytest.fixture
def store(tmp_path: Path, midi_file: MidiFile) -> CellStore:
    pieces = [
        ("train", DYNAMIC),
        ("train", FLAT),
        ("train", DYNAMIC),
        ("validation", DYNAMIC),
        ("validation", FLAT),
    ]
    return make_store(tmp_path / "store", midi_file, pieces)


@pytest.fixture
def cells(store: CellStore, tmp_path: Path) -> CellCache:
    return CellCache.open(build_cache(store, tmp_path / "cache"), "train")


def velvq_config(**changes: Any) -> dict[str, Any]:
    return {
        "form": "frame",
        "frames": 48,
        "batch_cells": 16,
        "max_steps": 5,
        "val_cells": None,
        "seed": 0,
        **changes,
    }


def test_the_cache_holds_the_pieces_with_dynamics_cell_by_cell(store: CellStore, tmp_path: Path) -> None:
    directory = build_cache(store, tmp_path / "cache")
    for part, pieces in (("train", [0, 2]), ("validation", [3])):
        cached, expected = CellCache.open(directory, part), store.joined(pieces)
        order = np.random.default_rng(0).permutation(len(expected))
        taken = cached.take(order)
        assert len(cached) == len(expected)
        assert np.array_equal(taken.sustain, expected.sustain[order])
        assert np.array_equal(frame_velocity(taken), frame_velocity(expected)[order])


def test_a_cache_is_reused_and_another_store_gets_its_own(
    store: CellStore, tmp_path: Path, midi_file: MidiFile
) -> None:
    root = tmp_path / "cache"
    first = build_cache(store, root)
    stamps = {p.name: p.stat().st_mtime_ns for p in first.iterdir()}
    assert build_cache(store, root) == first
    assert {p.name: p.stat().st_mtime_ns for p in first.iterdir()} == stamps
    other = make_store(tmp_path / "other", midi_file, [("train", DYNAMIC)])
    assert build_cache(other, root) != first
    assert sorted(p.name for p in root.iterdir()) == sorted({first.name, build_cache(other, root).name})


def test_a_batch_depends_on_seed_and_number_alone(cells: CellCache) -> None:
    batches = FrameBatches(cells, 24, 32, 7, 0, 1)
    forward = [batches[k]["velocity"] for k in range(4)]
    backward = [FrameBatches(cells, 24, 32, 7, 0, 1)[k]["velocity"] for k in (3, 2, 1, 0)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(forward[0], forward[1])
    assert not torch.equal(forward[0], FrameBatches(cells, 24, 32, 8, 0, 1)[0]["velocity"])


@pytest.mark.parametrize("world", [2, 3])
def test_the_slices_of_all_ranks_are_the_batch(cells: CellCache, world: int) -> None:
    whole = FrameBatches(cells, 48, 32, 0, 0, 1)[5]["velocity"]
    parts = [FrameBatches(cells, 48, 32, 0, rank, world)[5]["velocity"] for rank in range(world)]
    assert torch.equal(torch.cat(parts), whole)


def test_frames_of_a_batch_are_those_of_drawn_cells(cells: CellCache) -> None:
    drawn = FrameBatches(cells, 24, 64, 0, 0, 1)[0]["velocity"].numpy()
    known = resample(frame_velocity(cells.take(np.arange(len(cells)))), 24)
    assert {row.tobytes() for row in drawn} <= {row.tobytes() for row in known}


def test_segment_tables_hold_every_cell_by_its_number_of_segments(cells: CellCache) -> None:
    tables = segment_tables(cells, 3, 1)
    expected = cells.take(np.arange(len(cells)))
    count = np.minimum(expected.segment_count, 3)
    assert {n: len(table) for n, table in tables.items()} == {
        n: (count == n).sum() for n in set(count.tolist())
    }
    one = expected.segment_velocity[expected.segment_offset[:-1][count == 1]]
    assert np.array_equal(tables[1][:, 0, 0], one)
    frames = sum(int(table[:, 1].sum()) for table in tables.values())
    assert frames == int(np.bitwise_count(expected.sustain).sum())
    assert set(segment_tables(cells, 3, 2)) == set(tables) - {1}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_segment_batches_are_cut_by_rank_and_drawn_by_number(cells: CellCache, world: int) -> None:
    tables = segment_tables(cells, 2, 1)
    whole = SegmentBatches(tables, 32, 5, 0, 1)
    parts = [SegmentBatches(tables, 32, 5, rank, world)[7] for rank in range(world)]
    for name, values in whole[7].items():
        assert torch.equal(torch.cat([part[name] for part in parts]), values)
    assert whole[7]["velocity_1"].shape == (32, 1)
    assert not torch.equal(whole[7]["velocity_1"], whole[8]["velocity_1"])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_sees_each_cell_once_in_equally_many_batches(cells: CellCache, world: int) -> None:
    ranks = [ValidationBatches(cells, 16, None, rank, world) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    seen = [rank[k] for k in range(len(ranks[0])) for rank in ranks]
    expected = cells.take(np.arange(len(cells)))
    for name in ("sustain", "onset"):
        joined = torch.cat([batch[name] for batch in seen]).numpy().astype(np.uint64)
        assert np.array_equal(joined, getattr(expected, name))
    assert np.array_equal(torch.cat([b["segment_velocity"] for b in seen]).numpy(), expected.segment_velocity)


def test_validation_on_some_cells_spaces_them_evenly(cells: CellCache) -> None:
    batches = ValidationBatches(cells, 4, 10)
    sustain = torch.cat([batches[k]["sustain"] for k in range(len(batches))]).numpy().astype(np.uint64)
    assert np.array_equal(sustain, cells.sustain[np.arange(10) * len(cells) // 10])


def test_the_loader_goes_on_at_the_trainers_step(store: CellStore, tmp_path: Path) -> None:
    module = VelVQDataModule(store.directory, tmp_path / "cache", velvq_config())
    module.prepare_data()
    module.setup()
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, global_step=3, accumulate_grad_batches=1)
    module.trainer = trainer
    batches = list(module.train_dataloader())
    expected = FrameBatches(module.cache["train"], 48, 16, 0, 0, 1)
    assert len(batches) == 2
    for batch, k in zip(batches, (3, 4), strict=True):
        assert torch.equal(batch["velocity"], expected[k]["velocity"])


def test_without_validation_cells_training_cells_are_used(tmp_path: Path, midi_file: MidiFile) -> None:
    store = make_store(tmp_path / "store", midi_file, [("train", DYNAMIC), ("validation", FLAT)])
    module = VelVQDataModule(store.directory, tmp_path / "cache", velvq_config())
    module.prepare_data()
    module.setup()
    assert len(module.cache["validation"]) == 0
    assert module.validation_cells is module.cache["train"]


def test_data_without_dynamics_is_one_sentence_that_names_the_way_out(
    tmp_path: Path, midi_file: MidiFile
) -> None:
    store = make_store(tmp_path / "store", midi_file, [("train", FLAT), ("validation", DYNAMIC)])
    with pytest.raises(UserError, match=r"none of 1 training pieces has velocities.*tokenizer=base"):
        VelVQDataModule(store.directory, tmp_path / "cache", velvq_config()).prepare_data()
