"""Training of a velocity codec: the work of stage `velvq`.

Reads `velvq.*`, `trainer.*`, `compute.loader_workers`, `paths.work` and upstream `cells`. Publishes codec.safetensors
and config.json (`pianolm.tokenizer.velocity.VelocityCodec`), code_freq.npz (`count` int64 [K]: training and validation
cells of each code), and the pictures code_usage.png, code_atlas.png and worst_cells.png, which are logged, too; see
docs/velvq.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch

from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.training.hardware import trainer_arguments as stage_trainer_arguments
from pianolm.training.trainer import FitResult, fit
from pianolm.velvq.datamodule import VelVQDataModule
from pianolm.velvq.export import publish_survey, survey_codec
from pianolm.velvq.module import TARGET_MAE, VelVQModule, settings_of

_SCHEDULE = {"max_steps": "max_steps", "val_check_interval": "val_every", "gradient_clip_val": "grad_clip"}
"""Arguments of the Trainer that come from `velvq` instead of `trainer`."""


def train_codec(ctx: StageContext) -> Metrics:
    """Trains the codec, exports its best weights and measures them.

    Returns:
        The metrics. Those under `val/` are of the published files on all validation cells; during training the best
        weights are chosen on `velvq.val_cells` of them. `seconds_to_0.54`, training time without validation, is only
        there if that error was reached.

    Raises:
        UserError: No training piece has dynamics to learn from.
    """
    velvq = ctx.cfg["velvq"]
    cache_root = (
        Path(ctx.cfg["paths"]["work"]) / "velvq_cells"
    )  # not in the artifact: jobs of a sweep share it
    workers = int(ctx.cfg["compute"]["loader_workers"])
    data = VelVQDataModule(ctx.upstream["cells"], cache_root, velvq, workers)
    L.seed_everything(velvq["seed"], verbose=False)
    module = VelVQModule(settings_of(velvq))
    metrics: Metrics = {}

    def publish(result: FitResult) -> dict[str, Path]:
        module.load_state_dict(torch.load(result.best, map_location="cpu", weights_only=True)["state_dict"])
        module.export_weights(ctx.out)
        codec = VelocityCodec.from_directory(ctx.out)
        survey = survey_codec(codec, data)
        metrics.update(survey.errors.metrics())
        return publish_survey(ctx.out, codec, data, survey)

    result = fit(ctx, module, data, trainer_arguments(ctx.cfg), monitor=module.monitor, pictures=publish)
    metrics["train/cells_per_second"] = round(module.throughput.per_second, 1)
    if module.seconds_to_target is not None:
        metrics[f"seconds_to_{TARGET_MAE}"] = round(module.seconds_to_target, 1)
    metrics["resumed_from_step"] = result.resumed_from_step
    return metrics


def trainer_arguments(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The group `trainer` on one process, with the schedule of `velvq`."""
    schedule = {argument: cfg["velvq"][key] for argument, key in _SCHEDULE.items()}
    return {**stage_trainer_arguments(cfg, "velvq"), **schedule}
