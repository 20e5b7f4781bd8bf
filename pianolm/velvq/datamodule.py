"""Cells for training the velocity codec: a cache of those whose velocities say something, and its batches.

Shapes: C cells, S segments, B cells of a batch, n frames of a beat that the codec sees.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from pianolm.data.step_sampler import StepSampler
from pianolm.errors import UserError
from pianolm.music.cells import Cells, frame_velocity
from pianolm.tokenizer.velocity.frame import resample, resample_onsets
from pianolm.tokenizer.velocity.segment import segment_least, segment_rows

PARTS = ("train", "validation")
_ARRAYS: dict[str, Any] = {
    "sustain": np.uint64,
    "onset": np.uint64,
    "segment_offset": np.int64,
    "segment_velocity": np.uint8,
}
_MARKER = "cache.json"
_CHUNK = 1 << 18
"""Cells that are gathered at a time: bounds memory."""
_VALIDATION_BATCH = 16_384
SegmentTables = dict[int, NDArray[np.uint8]]
"""[C, 2, n] by n: velocities and lengths in frames of cells of n segments."""


@dataclass(frozen=True)
class CellCache:
    """Cells of one part (train or validation), flat pieces left out, in mapped files for random access.

    Attributes:
        sustain: [C] masks.
        onset: [C] masks.
        segment_offset: [C + 1] where the segments of each cell begin.
        segment_velocity: [S] 1–127.
    """

    sustain: NDArray[np.uint64]
    onset: NDArray[np.uint64]
    segment_offset: NDArray[np.int64]
    segment_velocity: NDArray[np.uint8]

    @classmethod
    def open(cls, directory: Path, part: str) -> CellCache:
        """Opens a part of a cache that `build_cache` made."""
        n_cells = json.loads((directory / _MARKER).read_text("utf-8"))["cells"][part]
        arrays = {name: np.load(_file(directory, part, name), mmap_mode="r") for name in _ARRAYS}
        # An empty file cannot be mapped, so that an empty part has one unused entry.
        arrays |= {name: arrays[name][:n_cells] for name in ("sustain", "onset")}
        return cls(**arrays)

    def __len__(self) -> int:
        return self.sustain.size

    def take(self, index: NDArray[np.int64]) -> Cells:
        """Cells [B] at any indices, in that order; their places in the pieces are not kept."""
        start = self.segment_offset[index]
        count = self.segment_offset[index + 1] - start
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        return Cells(
            beat=np.zeros(index.size, np.int32),
            pitch=np.zeros(index.size, np.uint8),
            sustain=self.sustain[index],
            onset=self.onset[index],
            segment_velocity=self.segment_velocity[np.repeat(start, count) + within],
            n_beats=1,
        )


def pieces_with_dynamics(store: CellStore, part: str) -> list[int]:
    """Indices of the pieces of a part whose velocities say something."""
    return [i for i in store.split(part) if not store.flat(i)]


def build_cache(store: CellStore, root: Path) -> Path:
    """The cache of a store below `root`: the one that is there, or a new one.

    Piece by piece, so that memory does not grow with the data; written beside its place and renamed when
    complete, so that processes may do it side by side.

    Returns:
        Its directory, named by the identity of the store's files.
    """
    target = root / _identity(store.directory)
    if (target / _MARKER).is_file():
        rank_zero_info(f"velvq: cell cache found in {target}")
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _renamed_when_complete(target) as partial:
        counts = {part: _write_part(store, part, partial) for part in PARTS}
        (partial / _MARKER).write_text(json.dumps({"cells": counts}) + "\n", "utf-8")
    rank_zero_info(
        f"velvq: cell cache of {counts['train']} training and {counts['validation']} validation cells"
    )
    return target


def _write_part(store: CellStore, part: str, directory: Path) -> int:
    """Copies the cells of a part piece by piece into arrays of their final length."""
    pieces = pieces_with_dynamics(store, part)
    n_cells = sum(store.pieces[i].cells for i in pieces)
    n_segments = sum(store.pieces[i].segments for i in pieces)
    length = {
        "sustain": n_cells,
        "onset": n_cells,
        "segment_offset": n_cells + 1,
        "segment_velocity": n_segments,
    }
    files = {
        name: np.lib.format.open_memmap(_file(directory, part, name), "w+", dtype, (max(length[name], 1),))
        for name, dtype in _ARRAYS.items()
    }
    cell = segment = 0
    for i in pieces:
        cells = store.cells(i)
        here = slice(cell, cell + len(cells))
        files["sustain"][here], files["onset"][here] = cells.sustain, cells.onset
        files["segment_offset"][cell : here.stop + 1] = segment + cells.segment_offset
        files["segment_velocity"][segment : segment + cells.segment_velocity.size] = cells.segment_velocity
        cell, segment = here.stop, segment + cells.segment_velocity.size
    for file in files.values():
        file.flush()
    return n_cells


def segment_tables(cells: CellCache, slots: int, least: int) -> SegmentTables:
    """Velocities and lengths of all cells by their number of segments, from `least` on: two bytes a segment."""
    parts: dict[int, list[NDArray[np.uint8]]] = {n: [] for n in range(least, slots + 1)}
    for start in range(0, len(cells), _CHUNK):
        chunk = cells.take(np.arange(start, min(start + _CHUNK, len(cells))))
        for rows in segment_rows(chunk, slots, least):
            both = np.stack([rows.velocity, rows.length], axis=1).astype(np.uint8)
            parts[rows.velocity.shape[1]].append(both)
    tables = {n: np.concatenate(found) for n, found in parts.items() if found}
    return {n: table for n, table in tables.items() if len(table)}


class SegmentBatches(Dataset[dict[str, Tensor]]):
    """Training batches of `velvq=segment`: `batch_cells` cells of each number of segments.

    Batch k is drawn by (seed, k) alone, with replacement; this process takes its slice of it.
    """

    def __init__(self, tables: SegmentTables, batch_cells: int, seed: int, rank: int, world: int) -> None:
        self.tables, self.batch_cells = tables, batch_cells
        self.seed, self.rank, self.world = seed, rank, world

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        generator = _generator(self.seed, k)
        batch = {}
        for n, table in self.tables.items():
            index = generator.integers(0, len(table), self.batch_cells)
            rows = torch.from_numpy(table[_rank_slice(index, self.rank, self.world)])
            batch[f"velocity_{n}"], batch[f"length_{n}"] = rows[:, 0], rows[:, 1]
        return batch


class FrameBatches(Dataset[dict[str, Tensor]]):
    """Training batches of `velvq=frame`: velocities of n frames a beat, and with `see_onset` where keys are struck.

    Batch k is drawn by (seed, k) alone, and this process takes its slice of it. Cells are drawn with replacement:
    over many cells that is as good as epochs, and needs neither a permutation in memory nor a position to resume at.
    """

    def __init__(
        self,
        cells: CellCache,
        frames: int,
        batch_cells: int,
        seed: int,
        rank: int,
        world: int,
        see_onset: bool = False,
    ) -> None:
        self.cells, self.frames, self.batch_cells, self.see_onset = cells, frames, batch_cells, see_onset
        self.seed, self.rank, self.world = seed, rank, world

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        index = _generator(self.seed, k).integers(0, len(self.cells), self.batch_cells)
        cells = self.cells.take(_rank_slice(index, self.rank, self.world))
        batch = {"velocity": torch.from_numpy(resample(frame_velocity(cells), self.frames))}
        if self.see_onset:
            batch["struck"] = torch.from_numpy(resample_onsets(cells.sustain, cells.onset, self.frames))
        return batch


class ValidationBatches(Dataset[dict[str, Tensor]]):
    """Every validation cell once, or `limit` of them evenly spaced; this process takes a slice of each batch.

    All processes have the same number of batches, some possibly empty, so that collective operations meet.
    """

    def __init__(
        self, cells: CellCache, batch_cells: int, limit: int | None, rank: int = 0, world: int = 1
    ) -> None:
        self.cells, self.batch_cells = cells, batch_cells
        self.count = min(len(cells), limit or len(cells))
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return -(-self.count // self.batch_cells)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        if not 0 <= k < len(self):
            raise IndexError(k)
        nth = np.arange(k * self.batch_cells, min((k + 1) * self.batch_cells, self.count))
        index = _rank_slice(nth * len(self.cells) // self.count, self.rank, self.world)
        cells = self.cells.take(index)
        return {
            "sustain": torch.from_numpy(cells.sustain.astype(np.int64)),
            "onset": torch.from_numpy(cells.onset.astype(np.int64)),
            "segment_velocity": torch.from_numpy(cells.segment_velocity),
        }


class VelVQDataModule(L.LightningDataModule):
    """Batches from the cell store of stage prepare.

    Args:
        store_directory: The cell store.
        cache_root: Where caches of cells lie.
        velvq: The `velvq` group: form and what it needs, batch_cells, max_steps, val_cells, seed.
        loader_workers: Processes that make batches, 0 for this one.
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
        """Builds the cache; Lightning calls this on one process of a machine."""
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
        directory = self._cache_root / _identity(self._store_directory)
        self.cache = {part: CellCache.open(directory, part) for part in PARTS}

    @property
    def validation_cells(self) -> CellCache:
        """Those of the validation part; where it has none, those of the training part."""
        return self.cache["validation"] if len(self.cache["validation"]) else self.cache["train"]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches from the trainer's step on, whose index is the number of the step."""
        v, trainer = self._velvq, self.trainer
        assert trainer is not None, "made by the trainer"
        drawn = (v["batch_cells"], v["seed"], trainer.global_rank, trainer.world_size)
        batches: Dataset[dict[str, Tensor]]
        if v["form"] == "segment":
            least = segment_least(v["codebook_size"])
            batches = SegmentBatches(segment_tables(self.cache["train"], v["slots"], least), *drawn)
        else:
            see_onset = bool(v.get("see_onset", False))
            batches = FrameBatches(self.cache["train"], v["frames"], *drawn, see_onset)
        first = trainer.global_step * trainer.accumulate_grad_batches
        steps = StepSampler(first, v["max_steps"] * trainer.accumulate_grad_batches)
        return DataLoader(batches, batch_size=None, sampler=steps, num_workers=self._loader_workers)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The validation cells, at most `velvq.val_cells`."""
        v, trainer = self._velvq, self.trainer
        assert trainer is not None, "made by the trainer"
        if not len(self.cache["validation"]):
            rank_zero_info("velvq: no validation cells with dynamics; validating on training cells")
        batches = ValidationBatches(
            self.validation_cells, _VALIDATION_BATCH, v["val_cells"], trainer.global_rank, trainer.world_size
        )
        return DataLoader(batches, batch_size=None, num_workers=self._loader_workers)


def _generator(seed: int, k: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, k], np.uint64)))


def _rank_slice(index: NDArray[np.int64], rank: int, world: int) -> NDArray[np.int64]:
    """The part of a global batch that one of `world` processes takes; joined in order they are the batch."""
    return index[index.size * rank // world : index.size * (rank + 1) // world]


def _identity(store_directory: Path) -> str:
    """Name for a store's content, from its files' place, sizes and times: an artifact never changes."""
    files = sorted(p for p in store_directory.iterdir() if p.suffix in (".npy", ".csv", ".json"))
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.name != "artifact.json"]
    text = json.dumps([str(store_directory.resolve()), stats])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file(directory: Path, part: str, name: str) -> Path:
    return directory / f"{part}_{name}.npy"


@contextmanager
def _renamed_when_complete(target: Path) -> Iterator[Path]:
    """An empty directory that becomes `target`; where another process was faster, its result stays."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        if not target.exists():
            try:
                os.rename(partial, target)
            except OSError:
                if not target.exists():
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
