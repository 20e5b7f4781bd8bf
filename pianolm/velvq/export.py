"""Measures a trained codec on all cells: errors, usage of codes, and pictures of both.

Shapes: C cells, G groups of cells by their number of segments, K codes, V velocities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm.music.cells import Cells
from pianolm.report.velvq import cell_errors, save_code_atlas, save_code_usage, segment_group
from pianolm.report.velvq_cells import save_worst_cells
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import CLASSES, VelocityErrors
from pianolm.velvq.cell_cache import CellCache
from pianolm.velvq.datamodule import VelVQDataModule

_CHUNK = 1 << 17
"""Cells that are encoded at a time; limits memory."""
_VELOCITIES = 128


@dataclass(eq=False)
class Survey:
    """Sums over the training and validation cells.

    Attributes:
        errors: Of the validation cells.
        code_count: [G, K] cells of each group and code.
        pair_count: [V, V] cells of two segments by the velocities of the first and the second.
        cell_error: Chunks [C] with the error of each validation cell, in the order of the cache.
        cell_group: Chunks [C] with the group of each validation cell.
    """

    errors: VelocityErrors
    code_count: NDArray[np.int64]
    pair_count: NDArray[np.int64]
    cell_error: list[NDArray[np.float32]] = field(default_factory=list)
    cell_group: list[NDArray[np.int8]] = field(default_factory=list)

    @classmethod
    def empty(cls, codebook_size: int) -> Survey:
        """Sums over no cells."""
        code_count = np.zeros((len(CLASSES), codebook_size), np.int64)
        pair_count = np.zeros((_VELOCITIES, _VELOCITIES), np.int64)
        return cls(VelocityErrors.empty(codebook_size), code_count, pair_count)

    def add(self, codec: VelocityCodec, cells: Cells, validation: bool) -> None:
        """Encodes and counts cells; validation cells are also decoded and measured."""
        codes, group = codec.encode(cells), segment_group(cells.segment_count)
        flat = np.bincount(group * codec.codebook_size + codes, minlength=self.code_count.size)
        self.code_count += flat.reshape(self.code_count.shape)
        first = cells.segment_offset[:-1][cells.segment_count == 2]
        pair = (
            cells.segment_velocity[first].astype(np.int64) * _VELOCITIES + cells.segment_velocity[first + 1]
        )
        self.pair_count += np.bincount(pair, minlength=self.pair_count.size).reshape(self.pair_count.shape)
        if validation:
            decoded = codec.decode(codes, cells.sustain, cells.onset)
            self.errors.add(codes, cells.sustain, cells.onset, cells.segment_velocity, decoded)
            self.cell_error.append(cell_errors(cells, decoded))
            self.cell_group.append(group.astype(np.int8))


def survey_codec(codec: VelocityCodec, data: VelVQDataModule) -> Survey:
    """Encodes training and validation cells, as the tokenizer does it, and measures the validation cells."""
    survey = Survey.empty(codec.codebook_size)
    for split in ("train", "validation"):
        cells = data.cache[split]
        for part in _chunks(cells):
            survey.add(codec, part, validation=cells is data.validation_cells)
    return survey


def _chunks(cells: CellCache) -> Iterator[Cells]:
    for start in range(0, len(cells), _CHUNK):
        yield cells.take(np.arange(start, min(start + _CHUNK, len(cells))))


def publish_survey(
    directory: Path, codec: VelocityCodec, data: VelVQDataModule, survey: Survey
) -> dict[str, Path]:
    """Writes the histogram of codes (code_freq.npz) and the pictures, and returns the pictures by name."""
    np.savez(directory / "code_freq.npz", count=survey.code_count.sum(axis=0))
    pictures = {name: directory / f"{name}.png" for name in ("code_usage", "code_atlas", "worst_cells")}
    save_code_usage(survey.code_count, pictures["code_usage"])
    save_code_atlas(codec, survey.code_count, survey.pair_count, pictures["code_atlas"])
    save_worst_cells(
        codec,
        data.validation_cells.take,
        np.concatenate(survey.cell_error),
        np.concatenate(survey.cell_group),
        pictures["worst_cells"],
    )
    return pictures
