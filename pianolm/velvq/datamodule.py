"""The LightningDataModule of velocity codecs.

Shapes: C cells, S segments, B cells of a batch, F = 48 frames of a beat, n segments of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pianolm.data.cell_store import CellStore
from pianolm.data.step_sampler import StepSampler, batch_loader
from pianolm.errors import UserError
from pianolm.music.cells import frame_velocity
from pianolm.tokenizer.velocity.segment import segment_least
from pianolm.velvq.cell_cache import (
    SPLITS,
    CellCache,
    SegmentTables,
    build_cache,
    cache_directory,
    pieces_with_dynamics,
    segment_tables,
)

_EVALUATION_BATCH = 16_384
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Draws:
    """Which cells a training batch has: drawn with replacement, as a function of (seed, number of the batch).

    Over many batches drawing is as good as epochs, and needs neither a permutation in memory nor a position to resume
    at.

    Attributes:
        batch_cells: B.
        seed: Seed of the draws.
        length: Batches of the whole training run.
    """

    batch_cells: int
    seed: int
    length: int

    def generator(self, k: int) -> np.random.Generator:
        """Random numbers of batch k."""
        return np.random.Generator(np.random.Philox(key=np.array([self.seed, k], np.uint64)))

    def draw(self, generator: np.random.Generator, count: int) -> NDArray[np.int64]:
        """`batch_cells` indices below `count`."""
        return generator.integers(0, count, self.batch_cells)


class SegmentBatches(Dataset[Batch]):
    """Batches of `velvq=segment`: `velocity_n` and `length_n` [B, n] uint8, B cells of each n that occurs."""

    def __init__(self, tables: SegmentTables, draws: Draws) -> None:
        self.tables, self.draws = tables, draws

    def __len__(self) -> int:
        return self.draws.length

    def __getitem__(self, k: int) -> Batch:
        generator = self.draws.generator(k)
        batch = {}
        for n, table in self.tables.items():
            rows = torch.from_numpy(table[self.draws.draw(generator, len(table))])
            batch[f"velocity_{n}"], batch[f"length_{n}"] = rows[:, 0], rows[:, 1]
        return batch


class FrameBatches(Dataset[Batch]):
    """Batches of `velvq=frame`: `velocity` [B, F] uint8 of the frames of a beat, 0 where silent."""

    def __init__(self, cells: CellCache, draws: Draws) -> None:
        self.cells, self.draws = cells, draws

    def __len__(self) -> int:
        return self.draws.length

    def __getitem__(self, k: int) -> Batch:
        cells = self.cells.take(self.draws.draw(self.draws.generator(k), len(self.cells)))
        return {"velocity": torch.from_numpy(frame_velocity(cells))}


class EvaluationBatches(Dataset[Batch]):
    """Every cell once, or `limit` evenly spaced ones."""

    def __init__(self, cells: CellCache, batch_cells: int, limit: int | None) -> None:
        self.cells, self.batch_cells = cells, batch_cells
        self.count = min(len(cells), limit or len(cells))

    def __len__(self) -> int:
        return -(-self.count // self.batch_cells)

    def __getitem__(self, k: int) -> Batch:
        if not 0 <= k < len(self):
            raise IndexError(k)
        nth = np.arange(k * self.batch_cells, min((k + 1) * self.batch_cells, self.count))
        cells = self.cells.take(nth * len(self.cells) // self.count)
        return {
            "sustain": torch.from_numpy(cells.sustain.astype(np.int64)),
            "onset": torch.from_numpy(cells.onset.astype(np.int64)),
            "segment_velocity": torch.from_numpy(cells.segment_velocity),
        }


class VelVQDataModule(L.LightningDataModule):
    """Batches from the cell store of stage prepare.

    Args:
        store_directory: The cell store.
        cache_root: Parent directory of cell caches.
        velvq: The options `velvq`: form, codebook_size, batch_cells, max_steps, val_cells, seed, and max_segments of
            the segment form.
        loader_workers: Subprocesses that make batches; 0 makes them in the main process.

    Attributes:
        cache: Cells of each split, after `setup`.
    """

    def __init__(
        self, store_directory: Path, cache_root: Path, velvq: Mapping[str, Any], loader_workers: int = 0
    ) -> None:
        super().__init__()
        self._store_directory, self._cache_root = store_directory, cache_root
        self._velvq = velvq
        self._loader_workers = loader_workers
        self.cache: dict[str, CellCache] = {}

    def prepare_data(self) -> None:
        """Builds the cache; Lightning calls this on one process of a machine.

        Raises:
            UserError: No training piece has dynamics.
        """
        store = CellStore.open(self._store_directory)
        if not any(store.pieces[i].cells for i in pieces_with_dynamics(store, "train")):
            pieces = len(store.split("train"))
            raise UserError(
                f"{self._store_directory}: none of {pieces} training pieces has velocities to learn from "
                "(all are flat, or scores); use tokenizer=base, or data with played dynamics"
            )
        build_cache(store, self._cache_root)

    def setup(self, stage: str | None = None) -> None:
        """Maps the cache."""
        directory = cache_directory(self._store_directory, self._cache_root)
        self.cache = {split: CellCache.open(directory, split) for split in SPLITS}

    @property
    def validation_cells(self) -> CellCache:
        """Validation cells, or training cells if there are none."""
        return self.cache["validation"] if len(self.cache["validation"]) else self.cache["train"]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from the trainer's current step to the last."""
        v, trainer, cells = self._velvq, self.trainer, self.cache["train"]
        assert trainer is not None, "Lightning's trainer calls this"
        stop = v["max_steps"] * trainer.accumulate_grad_batches
        draws = Draws(v["batch_cells"], v["seed"], stop)
        batches: Dataset[Batch]
        if v["form"] == "segment":
            tables = segment_tables(cells, v["max_segments"], segment_least(v["codebook_size"]))
            batches = SegmentBatches(tables, draws)
        else:
            batches = FrameBatches(cells, draws)
        steps = StepSampler(trainer.global_step * trainer.accumulate_grad_batches, stop)
        return self._dataloader(batches, steps)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation cells, at most `velvq.val_cells`."""
        if not len(self.cache["validation"]):
            rank_zero_info("velvq: no validation cells with dynamics; validating on training cells")
        return self._evaluation(self.validation_cells, self._velvq["val_cells"])

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test cells.

        Raises:
            UserError: There are none.
        """
        if not len(self.cache["test"]):
            raise UserError(
                f"{self._store_directory}: no test piece has velocities to measure; set a larger data.test_fraction"
            )
        return self._evaluation(self.cache["test"], None)

    def _evaluation(self, cells: CellCache, limit: int | None) -> DataLoader[Batch]:
        return self._dataloader(EvaluationBatches(cells, _EVALUATION_BATCH, limit))

    def _dataloader(self, batches: Dataset[Batch], steps: StepSampler | None = None) -> DataLoader[Batch]:
        return batch_loader(batches, steps, self._loader_workers)
