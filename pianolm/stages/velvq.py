"""Stage `velvq`: cells become a velocity codec, one code for the velocities of a cell.

Reads `velvq.*`, `compute.loader_workers`, `paths.work` and upstream `cells`. Publishes codec.safetensors and
config.json (`pianolm.tokenizer.velocity.VelocityCodec`), code_freq.npz (`count` int64 [K]: cells of the whole
cache, training and validation, by their code), and pictures of them (`pianolm.report.velvq`): code_usage.png,
code_atlas.png and worst_cells.png, which go to the logger too. docs/velvq.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from pianolm.config.neutral import CALLBACKS, TRAINER, without
from pianolm.music.cells import Cells
from pianolm.report.velvq import cell_errors, save_code_atlas, save_code_usage, segment_group
from pianolm.report.velvq_cells import save_worst_cells
from pianolm.stage import Metrics, Need, Stage, StageContext
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import CLASSES, VelocityErrors
from pianolm.training.hardware import resolve_hardware
from pianolm.training.trainer import FitResult, fit
from pianolm.velvq.datamodule import CellCache, VelVQDataModule
from pianolm.velvq.module import TARGET_MAE, VelVQModule, settings_of

_CHUNK = 1 << 17
"""Cells that are encoded at a time when the whole cache is counted: bounds memory."""


def run(ctx: StageContext) -> Metrics:
    """Trains the codec, exports its best weights and measures them on all validation cells.

    The metrics under `val/` are those of the published files, applied as the tokenizer applies them; while
    training, a part of the cells (`velvq.val_cells`) serves to choose the weights. `seconds_to_0.54` (of
    training, validation not counted) is there only when that error was reached.

    Raises:
        UserError: A setting is out of range, or no training piece has velocities to learn from.
    """
    velvq = _with_old_names(ctx.cfg["velvq"])
    settings = settings_of(velvq)
    data = VelVQDataModule(
        ctx.upstream["cells"], cache_root(ctx), velvq, int(ctx.cfg["compute"]["loader_workers"])
    )
    L.seed_everything(velvq["seed"], verbose=False)
    module = VelVQModule(settings)
    metrics: Metrics = {}

    def publish(result: FitResult) -> dict[str, Path]:
        module.load_state_dict(torch.load(result.best, map_location="cpu", weights_only=True)["state_dict"])
        module.export_weights(ctx.out)
        codec = VelocityCodec.from_directory(ctx.out)
        survey = survey_codec(codec, data)
        metrics.update(survey.errors.metrics())
        return publish_usage(ctx.out, codec, data, survey)

    result = fit(
        ctx,
        module,
        data,
        trainer_of(ctx.cfg),
        monitor="val/velocity_mae",
        pictures=publish,
    )
    if not module.trainer.is_global_zero:
        return {}
    metrics["train/cells_per_second"] = round(module.throughput.per_second, 1)
    if module.seconds_to_target is not None:
        metrics[f"seconds_to_{TARGET_MAE}"] = round(module.seconds_to_target, 1)
    metrics["resumed_from_step"] = result.resumed_from_step
    return metrics


def trainer_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's arguments: those of `trainer`, with the schedule of `velvq`."""
    velvq = cfg["velvq"]
    return {
        **cfg["trainer"],
        "max_steps": velvq["max_steps"],
        "val_check_interval": velvq["val_every"],
        "gradient_clip_val": velvq["grad_clip"],
    }


def cache_root(ctx: StageContext) -> Path:
    """Where caches of cells lie: outside the artifact, so that the jobs of a sweep share one."""
    return Path(ctx.cfg["paths"]["work"]) / "velvq_cells"


@dataclass(eq=False)
class Survey:
    """What a codec does to all cells of a cache, added up.

    Attributes:
        errors: Of the validation cells.
        code_count: [G, K] cells by their number of segments and their code.
        pair_count: [V, V] cells of two segments by their velocities, first and second.
        cell_error: Chunks [C] of the error of each validation cell, and
        cell_group: its group by segments, in the order of the cache.
    """

    errors: VelocityErrors
    code_count: NDArray[np.int64]
    pair_count: NDArray[np.int64]
    cell_error: list[NDArray[np.float32]] = field(default_factory=list)
    cell_group: list[NDArray[np.int8]] = field(default_factory=list)

    @classmethod
    def empty(cls, codebook_size: int) -> Survey:
        """No cells yet."""
        count = np.zeros((len(CLASSES), codebook_size), np.int64)
        return cls(VelocityErrors.empty(codebook_size), count, np.zeros((128, 128), np.int64))

    def add(self, codec: VelocityCodec, cells: Cells, measured: bool) -> None:
        """Encodes cells and counts them; where they are to be measured, decodes them too."""
        codes, group = codec.encode(cells), segment_group(cells.segment_count)
        flat = np.bincount(group * codec.codebook_size + codes, minlength=self.code_count.size)
        self.code_count += flat.reshape(self.code_count.shape)
        first = cells.segment_offset[:-1][cells.segment_count == 2]
        pair = cells.segment_velocity[first].astype(np.int64) * 128 + cells.segment_velocity[first + 1]
        self.pair_count += np.bincount(pair, minlength=self.pair_count.size).reshape(self.pair_count.shape)
        if measured:
            decoded = codec.decode(codes, cells.sustain, cells.onset)
            self.errors.add(codes, cells.sustain, cells.onset, cells.segment_velocity, decoded)
            self.cell_error.append(cell_errors(cells, decoded))
            self.cell_group.append(group.astype(np.int8))


def survey_codec(codec: VelocityCodec, data: VelVQDataModule) -> Survey:
    """Encodes the whole cache, as the tokenizer does it, and measures the validation cells."""
    survey = Survey.empty(codec.codebook_size)
    for cells in data.cache.values():
        for part in _chunks(cells):
            survey.add(codec, part, measured=cells is data.validation_cells)
    return survey


def _chunks(cells: CellCache) -> Iterator[Cells]:
    for start in range(0, len(cells), _CHUNK):
        yield cells.take(np.arange(start, min(start + _CHUNK, len(cells))))


def publish_usage(
    directory: Path, codec: VelocityCodec, data: VelVQDataModule, survey: Survey
) -> dict[str, Path]:
    """Writes the histogram of codes and the pictures, which it returns by name."""
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


def _with_old_names(velvq: Mapping[str, Any]) -> dict[str, Any]:
    names = {"lr": "learning_rate", "max_segments": "slots"}
    return {**{names.get(key, key): value for key, value in velvq.items()}, "weight_decay": 0.0}


def _settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    schedule = frozenset({"max_steps", "val_check_interval", "gradient_clip_val"})  # those of `velvq` count
    return {
        "velvq": dict(cfg["velvq"]),
        "trainer": without(cfg["trainer"], TRAINER | schedule),
        "callbacks": without(cfg["callbacks"], CALLBACKS),
        "precision": resolve_hardware(cfg["trainer"]).precision,
    }


STAGE = Stage(
    run,
    "Cells to a velocity codec: one code for the velocities of a cell.",
    needs=lambda cfg: {"cells": Need("prepare", given="cells")},
    settings=_settings,
    version=3,
    objective="val/velocity_mae",
    trains=True,
)
