"""Training of every stage: Lightning's Trainer with the run's hardware, loggers, callbacks and checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from pianolm.config.neutral import is_limited
from pianolm.errors import UserError
from pianolm.signals import STOP, StoppedBySignalError
from pianolm.stage import StageContext
from pianolm.training.checkpointing import (
    AtomicCheckpointIO,
    BatchCounter,
    BestCheckpoint,
    ConfigInCheckpoint,
    KeptCheckpoint,
    LastCheckpoint,
    RandomStates,
    ValidateAtTheEnd,
)
from pianolm.training.hardware import (
    SMALL,
    Hardware,
    find_launcher,
    keep_freed_memory,
    precision_said,
    require,
    resolve_hardware,
    set_threads,
)
from pianolm.training.loggers import RunContext, log_pictures
from pianolm.training.quiet import quieten
from pianolm.training.resume import BEFORE_DECAY, LAST, checkpoint_step, checkpoint_to_start_from
from pianolm.training.sharding import ShardedStrategy


@dataclass(frozen=True)
class FitResult:
    """Result of a training run.

    Attributes:
        best: Checkpoint with the best monitored metric.
        resumed_from_step: Optimizer steps done by an earlier run, 0 for a fresh start.
    """

    best: Path
    resumed_from_step: int


def fit(
    ctx: StageContext,
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    arguments: Mapping[str, Any],
    *,
    monitor: str,
    accumulate: int = 1,
    keep_step: int | None = None,
    pictures: Callable[[FitResult], Mapping[str, Path]] | None = None,
) -> FitResult:
    """Trains a module, continuing unfinished training of the same artifact where there is some.

    Args:
        ctx: The stage's context; checkpoints lie in `ctx.work`, logs in `ctx.run_dir`.
        module: Logs `monitor` in validation.
        datamodule: Its training batch k is a pure function of k.
        arguments: Arguments of `lightning.Trainer` as the group `trainer` has them, so that `val_check_interval` counts
            optimizer steps. One more validation is made at the end.
        monitor: Validation metric that chooses the best weights, the lowest being best.
        accumulate: Micro-batches of an optimizer step.
        keep_step: Optimizer steps after which the state is kept for good, for a longer run to continue from.
        pictures: Called on the first process after training, while the loggers are open; the PNG files that it
            returns by name are logged to W&B.
    """
    quieten()
    hardware = _hardware(ctx, arguments)
    ctx.work.mkdir(parents=True, exist_ok=True)
    start_from = checkpoint_to_start_from(ctx, module, int(arguments["max_steps"]))
    resumed_step = checkpoint_step(start_from)
    if resumed_step:
        rank_zero_info(f"{ctx.name}: continues from step {resumed_step} ({start_from})")
    context = RunContext(ctx, resumed_step > 0, monitor)
    loggers: list[Any] = _entries(ctx.cfg["logger"], "logger", context)
    best = BestCheckpoint(ctx.work / "best", monitor)
    trainer = L.Trainer(
        **_arguments(arguments, hardware, accumulate, ctx.run_dir),
        logger=loggers,
        callbacks=_callbacks(context, best, keep_step),
    )
    try:
        trainer.fit(
            module, datamodule, ckpt_path=str(start_from) if resumed_step else None, weights_only=True
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        if trainer.global_step > resumed_step and not arguments["fast_dev_run"]:
            # of the last step: the run can be extended, and is not trained again if it is killed while it publishes
            trainer.save_checkpoint(ctx.work / LAST, weights_only=False)
        STOP.deferred = False
        if STOP.received:
            raise StoppedBySignalError(STOP.received)
        result = FitResult(_best_weights(trainer, best, arguments), resumed_step)
        if trainer.is_global_zero:
            log_pictures(loggers, {**_curves(ctx), **(pictures(result) if pictures else {})})
        return result
    finally:
        STOP.deferred = False


def _hardware(ctx: StageContext, arguments: Mapping[str, Any]) -> Hardware:
    """What the stage trains on, checked and said, with this process's threads and memory set for it."""
    hardware = resolve_hardware(arguments)
    require(hardware, ctx.name not in SMALL)
    if hardware.processes > 1:
        machines = f" on {hardware.num_nodes} machines" if hardware.num_nodes > 1 else ""
        rank_zero_info(f"{ctx.name}: trains in {hardware.processes} processes{machines}, {hardware.strategy}")
    if arguments["precision"] == "auto":
        rank_zero_info(f"{ctx.name}: {precision_said(hardware)}")
    set_threads(ctx.cfg, hardware.devices)
    keep_freed_memory()
    return hardware


def _arguments(
    arguments: Mapping[str, Any], hardware: Hardware, accumulate: int, run_dir: Path
) -> dict[str, Any]:
    """Arguments for `lightning.Trainer`: what is left open is settled, and validation counts micro-batches."""
    steps = int(arguments["max_steps"])
    sharded = hardware.strategy == "fsdp"
    plugins = instantiate(arguments["plugins"] or [], _convert_="all")
    if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        plugins = [_environment(hardware), *plugins]
    return {
        **arguments,
        "accelerator": hardware.accelerator,
        "devices": hardware.devices,
        "num_nodes": hardware.num_nodes,
        "strategy": ShardedStrategy(hardware.processes) if sharded else hardware.strategy,
        "precision": hardware.precision,
        "accumulate_grad_batches": accumulate,
        "val_check_interval": min(int(arguments["val_check_interval"]), steps) * accumulate,
        "log_every_n_steps": min(int(arguments["log_every_n_steps"]), steps),
        # weights gathered in inference mode could not be trained afterwards
        "inference_mode": arguments["inference_mode"] and not sharded,
        "default_root_dir": arguments["default_root_dir"] or run_dir,
        "plugins": [AtomicCheckpointIO(), *plugins],
    }


def _environment(hardware: Hardware) -> ClusterEnvironment:
    """Where ranks come from; Lightning would take torchrun or srun also for stages that train in one process."""
    launcher = find_launcher()
    if launcher is None or hardware.processes == 1:
        return LightningEnvironment()
    if launcher.name == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False)  # see `pianolm.pipeline.slurm`


def _callbacks(context: RunContext, best: BestCheckpoint, keep_step: int | None) -> list[Callback]:
    """Those that every training needs, and those of the configuration.

    What saves the state comes behind `best`, whose choice it saves; a configuration without `LastCheckpoint` saves at
    signals only.
    """
    entries: list[Any] = _entries(context.stage.cfg["callbacks"], "callbacks", context)
    saving = [entry for entry in entries if isinstance(entry, LastCheckpoint)]
    if not saving:
        saving = [LastCheckpoint(context.stage.work / LAST)]
    return [
        *(entry for entry in entries if not isinstance(entry, LastCheckpoint)),
        ConfigInCheckpoint(context.stage.cfg, context.stage.name),
        BatchCounter(),
        RandomStates(),
        ValidateAtTheEnd(),
        best,
        *([] if keep_step is None else [KeptCheckpoint(context.stage.work / BEFORE_DECAY, keep_step)]),
        *saving,
    ]


def _entries(group: Mapping[str, Any], name: str, context: RunContext) -> list[Any]:
    """The objects of a group of `_target_` entries; those with `_partial_: true` are completed with the context.

    Raises:
        UserError: An entry cannot be instantiated.
    """
    made: list[Callback | Logger] = []
    for key, entry in group.items():
        if entry is None:
            continue
        try:
            one = instantiate(entry, _convert_="all")
            made.append(one(context=context) if isinstance(one, functools.partial) else one)
        except (InstantiationException, TypeError) as error:
            reason = error.__cause__ or error
            raise UserError(f"{name}.{key}: {entry.get('_target_')} cannot be made: {reason}") from error
    return made


def _best_weights(trainer: L.Trainer, best: BestCheckpoint, arguments: Mapping[str, Any]) -> Path:
    """The checkpoint with the best metric; the last weights where batches are limited and none was validated."""
    if best.best_model_path:
        return Path(best.best_model_path)
    assert is_limited(arguments), "a full run validates after its last step"
    path = Path(str(best.dirpath)) / "last_weights.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    return path


def _curves(ctx: StageContext) -> dict[str, Path]:
    from pianolm.report.runs import draw_finished  # matplotlib is slow to import

    picture = draw_finished(ctx.run_dir, ctx.name)
    return {} if picture is None else {f"curves_{ctx.name}": picture}
