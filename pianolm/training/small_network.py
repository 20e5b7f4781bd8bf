"""Training of a stage's small network on one process: fit, then publish and validate the best weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch

from pianolm.stage import Metrics, StageContext
from pianolm.training.hardware import trainer_arguments as stage_trainer_arguments
from pianolm.training.throughput import MonitoredModule
from pianolm.training.trainer import fit


class ExportedModule(MonitoredModule):
    """A module that writes what its stage publishes."""

    def export_weights(self, directory: Path) -> None:
        """Writes the network to the artifact."""
        raise NotImplementedError


def train_small_network(
    ctx: StageContext, module: ExportedModule, data: L.LightningDataModule, group: str
) -> Metrics:
    """Trains a module for the `max_steps` of its options, and publishes its best weights.

    Args:
        ctx: The stage's context.
        module: The module.
        data: Its data, which Lightning sets up.
        group: Group of the options.

    Returns:
        The metrics. Those under `val/` are of the best weights.
    """
    result = fit(ctx, module, data, trainer_arguments(ctx.cfg, group), monitor=module.monitor)
    checkpoint = torch.load(result.best, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    module.export_weights(ctx.out)
    return {
        **_validated(module, data),
        f"train/{module.items}_per_second": round(module.throughput.per_second, 1),
        "parameters": sum(p.numel() for p in module.parameters()),
        "resumed_from_step": result.resumed_from_step,
    }


def _validated(module: L.LightningModule, data: L.LightningDataModule) -> Metrics:
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


def trainer_arguments(cfg: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The group `trainer` on one process, with the number of steps of the stage's own options."""
    return {**stage_trainer_arguments(cfg, group), "max_steps": cfg[group]["max_steps"]}
