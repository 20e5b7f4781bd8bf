"""The cell cache: cells with dynamics of a cell store, in mapped files for random access.

Shapes: C cells, S segments, B cells of a batch, n segments of a cell.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.music.cells import Cells
from pianolm.tokenizer.velocity.segment import segment_rows

SPLITS = ("train", "validation", "test")
_ARRAYS: dict[str, Any] = {
    "sustain": np.uint64,
    "onset": np.uint64,
    "segment_offset": np.int64,
    "segment_velocity": np.uint8,
}
_MARKER = "cache.json"
_CHUNK = 1 << 18
"""Cells that are gathered at a time; limits memory."""
SegmentTables = dict[int, NDArray[np.uint8]]
"""[C, 2, n] by n: velocities and lengths in frames of cells of n segments."""


@dataclass(frozen=True)
class CellCache:
    """Cells of one split, without flat pieces, in mapped files.

    Attributes:
        sustain: [C] masks.
        onset: [C] masks.
        segment_offset: [C + 1] start of the segments of each cell.
        segment_velocity: [S] 1–127.
    """

    sustain: NDArray[np.uint64]
    onset: NDArray[np.uint64]
    segment_offset: NDArray[np.int64]
    segment_velocity: NDArray[np.uint8]

    @classmethod
    def open(cls, directory: Path, split: str) -> CellCache:
        """Opens a split of a cache that `build_cache` wrote."""
        n_cells = json.loads((directory / _MARKER).read_text("utf-8"))["cells"][split]
        arrays = {name: np.load(_file(directory, split, name), mmap_mode="r") for name in _ARRAYS}
        # An empty file cannot be mapped, so the arrays of an empty split have one unused entry.
        arrays |= {name: arrays[name][:n_cells] for name in ("sustain", "onset")}
        return cls(**arrays)

    def __len__(self) -> int:
        return self.sustain.size

    def take(self, index: NDArray[np.int64]) -> Cells:
        """Cells [B] at any indices, in that order; beat and pitch are not cached and are 0."""
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


def pieces_with_dynamics(store: CellStore, split: str) -> list[int]:
    """Indices of the pieces of a split that are not flat."""
    return [i for i in store.split(split) if not store.flat(i)]


def cache_directory(store_directory: Path, root: Path) -> Path:
    """Directory of the cache of a store, named by place, sizes and times of the store's files: these never change."""
    files = sorted(p for p in store_directory.iterdir() if p.suffix in (".npy", ".csv", ".json"))
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.name != "artifact.json"]
    text = json.dumps([str(store_directory.resolve()), stats, SPLITS])
    return root / hashlib.sha256(text.encode()).hexdigest()[:16]


def build_cache(store: CellStore, root: Path) -> Path:
    """Writes the cache of a store below `root`, unless it exists, and returns its directory.

    The cache is written piece by piece, so that memory does not grow with the data, beside its final place, and renamed
    when it is complete, so that several processes may do it at the same time.
    """
    target = cache_directory(store.directory, root)
    if (target / _MARKER).is_file():
        rank_zero_info(f"velvq: cell cache found in {target}")
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _renamed_when_complete(target) as partial:
        counts = {split: _write_split(store, split, partial) for split in SPLITS}
        (partial / _MARKER).write_text(json.dumps({"cells": counts}) + "\n", "utf-8")
    numbers = ", ".join(f"{count} {split}" for split, count in counts.items())
    rank_zero_info(f"velvq: cell cache of {numbers} cells")
    return target


def _write_split(store: CellStore, split: str, directory: Path) -> int:
    """Copies the cells of a split piece by piece into arrays of their final length; returns their number."""
    pieces = pieces_with_dynamics(store, split)
    n_cells = sum(store.pieces[i].cells for i in pieces)
    n_segments = sum(store.pieces[i].segments for i in pieces)
    length = {
        "sustain": n_cells,
        "onset": n_cells,
        "segment_offset": n_cells + 1,
        "segment_velocity": n_segments,
    }
    files = {
        name: np.lib.format.open_memmap(_file(directory, split, name), "w+", dtype, (max(length[name], 1),))
        for name, dtype in _ARRAYS.items()
    }
    cell = segment = 0
    for i in pieces:
        cells = store.cells(i)
        at = slice(cell, cell + len(cells))
        files["sustain"][at], files["onset"][at] = cells.sustain, cells.onset
        files["segment_offset"][cell : at.stop + 1] = segment + cells.segment_offset
        files["segment_velocity"][segment : segment + cells.segment_velocity.size] = cells.segment_velocity
        cell, segment = at.stop, segment + cells.segment_velocity.size
    for file in files.values():
        file.flush()
    return n_cells


def segment_tables(cells: CellCache, max_segments: int, least: int) -> SegmentTables:
    """Velocities and lengths of the cells of at least `least` segments, by number of segments: two bytes a segment."""
    parts: dict[int, list[NDArray[np.uint8]]] = {n: [] for n in range(least, max_segments + 1)}
    for start in range(0, len(cells), _CHUNK):
        chunk = cells.take(np.arange(start, min(start + _CHUNK, len(cells))))
        for rows in segment_rows(chunk, max_segments, least):
            both = np.stack([rows.velocity, rows.length], axis=1).astype(np.uint8)
            parts[rows.velocity.shape[1]].append(both)
    tables = {n: np.concatenate(chunks) for n, chunks in parts.items() if chunks}
    return {n: table for n, table in tables.items() if len(table)}


def _file(directory: Path, split: str, name: str) -> Path:
    return directory / f"{split}_{name}.npy"


@contextmanager
def _renamed_when_complete(target: Path) -> Iterator[Path]:
    """An empty directory that is renamed to `target`, unless another process has made that already."""
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
