"""Stage `velvq`: cells become a velocity codec, one code for the velocities of a cell.

Reads `velvq.*`, `compute.loader_workers`, `paths.work` and upstream `cells`. Publishes codec.safetensors and
config.json (`pianolm.tokens.velocity.VelocityCodec`), code_freq.npz (`count` int64 [K]: cells of the whole
cache, training and validation, by their code) and its picture code_usage.png.
"""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pianolm.data.velvq_data import CellCache, VelVQDataModule
from pianolm.errors import UserError
from pianolm.nn.velvq import TARGET_MAE, VelVQModule, settings_of
from pianolm.stages.context import Metrics, StageContext
from pianolm.stages.training import fit
from pianolm.tokens.velocity import VelocityCodec
from pianolm.tokens.velocity_errors import VelocityErrors, perplexity

VERSION = 2

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
    velvq = ctx.cfg["velvq"]
    settings = settings_of(velvq)
    if velvq["batch_cells"] < settings.codebook_size:
        raise UserError(
            f"velvq.batch_cells={velvq['batch_cells']} found, expected at least velvq.codebook_size="
            f"{settings.codebook_size}: the codes start as clusters of the first batch"
        )
    data = VelVQDataModule(
        ctx.upstream["cells"], cache_root(ctx), velvq, int(ctx.cfg["compute"]["loader_workers"])
    )
    L.seed_everything(velvq["seed"], verbose=False)
    module = VelVQModule(settings)
    result = fit(
        ctx,
        module,
        data,
        max_steps=settings.max_steps,
        val_every=velvq["val_every"],
        monitor="val/velocity_mae",
        grad_clip=velvq["grad_clip"],
    )
    if not module.trainer.is_global_zero:
        return {}
    module.load_state_dict(torch.load(result.best, map_location="cpu", weights_only=True)["state_dict"])
    module.export_weights(ctx.out)
    metrics: Metrics = dict(publish_usage(ctx.out, data))
    cells = (settings.max_steps - result.resumed_from_step) * velvq["batch_cells"]
    metrics["train/cells_per_second"] = round(cells / max(module.seconds_here, 1e-9), 1)
    if module.seconds_to_target is not None:
        metrics[f"seconds_to_{TARGET_MAE}"] = round(module.seconds_to_target, 1)
    metrics["resumed_from_step"] = result.resumed_from_step
    return metrics


def cache_root(ctx: StageContext) -> Path:
    """Where caches of cells lie: outside the artifact, so that the jobs of a sweep share one."""
    return Path(ctx.cfg["paths"]["work"]) / "velvq_cells"


def publish_usage(directory: Path, data: VelVQDataModule) -> dict[str, float]:
    """Encodes the whole cache with the published codec: histogram, picture, errors on validation cells."""
    codec = VelocityCodec.from_directory(directory)
    errors = VelocityErrors.empty(codec.codebook_size)
    count = np.zeros(codec.codebook_size, np.int64)
    for cells in data.cache.values():
        measured = errors if cells is data.validation_cells else None
        count += code_counts(codec, cells, measured)
    np.savez(directory / "code_freq.npz", count=count)
    plot_usage(directory / "code_usage.png", count)
    return errors.metrics()


def code_counts(codec: VelocityCodec, cells: CellCache, errors: VelocityErrors | None) -> NDArray[np.int64]:
    """[K] cells by their code; where `errors` is given, decodes them too and adds them to it."""
    count = np.zeros(codec.codebook_size, np.int64)
    for start in range(0, len(cells), _CHUNK):
        part = cells.take(np.arange(start, min(start + _CHUNK, len(cells))))
        codes = codec.encode(part)
        count += np.bincount(codes, minlength=codec.codebook_size)
        if errors is not None:
            decoded = codec.decode(codes, part.sustain, part.onset)
            errors.add(codes, part.sustain, part.onset, part.segment_velocity, decoded)
    return count


def plot_usage(path: Path, count: NDArray[np.int64]) -> None:
    """Draws how often each code is used, most frequent first."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    share = np.sort(count)[::-1] / max(count.sum(), 1)
    axes.bar(np.arange(count.size), share, width=1.0)
    axes.set_yscale("log" if count.any() else "linear")
    axes.set(
        xlabel="velocity code, most frequent first", ylabel="share of cells", xlim=(-0.5, count.size - 0.5)
    )
    used = np.count_nonzero(count)
    axes.set_title(f"{used} of {count.size} codes used, perplexity {perplexity(count):.0f}", fontsize=10)
    figure.savefig(path, dpi=120)
