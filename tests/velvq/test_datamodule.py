from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.music.cells import frame_velocity
from pianolm.velvq.cell_cache import CellCache, segment_tables
from pianolm.velvq.datamodule import Draws, EvaluationBatches, FrameBatches, SegmentBatches, VelVQDataModule
from tests.velvq.toys import DYNAMIC, FLAT, MidiFile, make_store, velvq_config


def test_a_batch_depends_on_seed_and_number_alone(cells: CellCache) -> None:
    batches = FrameBatches(cells, Draws(32, 7, 9))
    forward = [batches[k]["velocity"] for k in range(4)]
    backward = [FrameBatches(cells, Draws(32, 7, 9))[k]["velocity"] for k in (3, 2, 1, 0)][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(forward[0], forward[1])
    assert not torch.equal(forward[0], FrameBatches(cells, Draws(32, 8, 9))[0]["velocity"])


def test_frames_of_a_batch_are_those_of_drawn_cells(cells: CellCache) -> None:
    drawn = FrameBatches(cells, Draws(64, 0, 9))[0]["velocity"].numpy()
    known = frame_velocity(cells.take(np.arange(len(cells))))
    assert {row.tobytes() for row in drawn} <= {row.tobytes() for row in known}


def test_segment_batches_are_drawn_by_number(cells: CellCache) -> None:
    tables = segment_tables(cells, 2, 1)
    batches, again = (SegmentBatches(tables, Draws(32, 5, 9)) for _ in range(2))
    assert batches[8]["velocity_1"].shape == (32, 1)
    for name, values in batches[7].items():
        assert torch.equal(again[7][name], values)
    assert not torch.equal(batches[7]["velocity_1"], batches[8]["velocity_1"])


def test_validation_sees_each_cell_once(cells: CellCache) -> None:
    batches = EvaluationBatches(cells, 16, None)
    seen = [batches[k] for k in range(len(batches))]
    expected = cells.take(np.arange(len(cells)))
    for name in ("sustain", "onset"):
        joined = torch.cat([batch[name] for batch in seen]).numpy().astype(np.uint64)
        assert np.array_equal(joined, getattr(expected, name))
    assert np.array_equal(torch.cat([b["segment_velocity"] for b in seen]).numpy(), expected.segment_velocity)


def test_validation_on_some_cells_spaces_them_evenly(cells: CellCache) -> None:
    batches = EvaluationBatches(cells, 4, 10)
    sustain = torch.cat([batches[k]["sustain"] for k in range(len(batches))]).numpy().astype(np.uint64)
    assert np.array_equal(sustain, cells.sustain[np.arange(10) * len(cells) // 10])


def test_the_loader_continues_at_the_trainers_step(store: CellStore, tmp_path: Path) -> None:
    module = VelVQDataModule(store.directory, tmp_path / "cache", velvq_config())
    module.prepare_data()
    module.setup()
    trainer: Any = SimpleNamespace(global_step=3, accumulate_grad_batches=1)
    module.trainer = trainer
    batches = list(module.train_dataloader())
    expected = FrameBatches(module.cache["train"], Draws(16, 0, 5))
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


def test_data_without_dynamics_is_one_sentence_that_says_what_to_do(
    tmp_path: Path, midi_file: MidiFile
) -> None:
    store = make_store(tmp_path / "store", midi_file, [("train", FLAT), ("validation", DYNAMIC)])
    with pytest.raises(UserError, match=r"none of 1 training pieces has velocities.*tokenizer=base"):
        VelVQDataModule(store.directory, tmp_path / "cache", velvq_config()).prepare_data()


def test_testing_without_test_cells_is_one_sentence(store: CellStore, tmp_path: Path) -> None:
    module = VelVQDataModule(store.directory, tmp_path / "cache", velvq_config())
    module.prepare_data()
    module.setup("test")
    with pytest.raises(UserError, match="no test piece has velocities to measure"):
        module.test_dataloader()
