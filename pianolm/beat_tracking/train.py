"""Training of a beat tracker: the work of stage `beats`.

Reads `beats.*`, `trainer.*`, `seed`, `compute.loader_workers` and upstream `cells`. Publishes network.safetensors and
network.json (`pianolm.music.beat_network.BeatNetwork`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from pianolm.beat_tracking.datamodule import BeatDataModule
from pianolm.beat_tracking.module import BeatModule, BeatSettings
from pianolm.stage import Metrics, StageContext
from pianolm.training.hardware import trainer_arguments as stage_trainer_arguments
from pianolm.training.trainer import fit


def train_tracker(ctx: StageContext) -> Metrics:
    """Trains the network and publishes its best weights.

    Returns:
        The metrics. Those under `val/` are of the best weights, on excerpts of validation pieces.

    Raises:
        UserError: No training piece has notes enough.
    """
    beats, seed = ctx.cfg["beats"], int(ctx.cfg["seed"])
    data = BeatDataModule(ctx.upstream["cells"], beats, seed, int(ctx.cfg["compute"]["loader_workers"]))
    L.seed_everything(seed, verbose=False)
    module = BeatModule(BeatSettings.from_config(beats))
    result = fit(ctx, module, data, trainer_arguments(ctx.cfg), monitor=module.monitor)
    checkpoint = torch.load(result.best, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    module.export_weights(ctx.out)
    return {
        **_validated(module, data),
        "train/seconds_per_second": round(module.throughput.per_second, 1),
        "parameters": sum(p.numel() for p in module.parameters()),
        "resumed_from_step": result.resumed_from_step,
    }


def _validated(module: BeatModule, data: BeatDataModule) -> Metrics:
    """Validation metrics of the module's current weights."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    (metrics,) = trainer.validate(module, data, verbose=False)
    return {name: round(float(value), 4) for name, value in metrics.items()}


def trainer_arguments(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The group `trainer` on one process, with the number of steps of `beats`."""
    return {**stage_trainer_arguments(cfg, "beats"), "max_steps": cfg["beats"]["max_steps"]}
