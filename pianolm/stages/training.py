"""Training, the same for every stage: the Trainer, its hardware, loggers, checkpoints and resuming."""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from pianolm.callbacks import (
    AtomicCheckpointIO,
    ConfigInCheckpoint,
    RandomStates,
    StepLines,
    ValidateAtTheEnd,
)
from pianolm.errors import UserError
from pianolm.stages.context import StageContext

_EXPECTED_WARNINGS = (
    ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 with torch 2.13: an interface that torch renames
    ".*does not have many workers.*",  # a batch is a slice of a mapped file
    ".*Checkpoint directory .* exists and is not empty.*",  # the work of a resumed run
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # batch k depends on k alone
)
_CHATTER = ("GPU available", "TPU available", "HPU available", "💡 Tip", "`Trainer.fit` stopped")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
PRECISIONS = ("auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed")


@dataclass(frozen=True)
class Hardware:
    """What training runs on: Lightning's accelerator, processes on this machine, strategy and precision."""

    accelerator: str
    processes: int
    strategy: str
    precision: str


@dataclass(frozen=True)
class FitResult:
    """What came of a training run.

    Attributes:
        best: Weights with the best monitored metric.
        resumed_from_step: Optimizer steps done by an earlier run, 0 for a fresh start.
        seconds: Of training in this run, validation included.
    """

    best: Path
    resumed_from_step: int
    seconds: float


def resolve_hardware(cfg: Mapping[str, Any]) -> Hardware:
    """Settles `hardware.*` on this machine: auto takes a GPU with bf16 when there is one, else the CPU.

    Raises:
        UserError: A GPU is asked for and there is none, or a value is unknown.
    """
    wanted = cfg["hardware"]
    accelerator = wanted["accelerator"]
    gpus = torch.cuda.device_count()
    if accelerator == "auto":
        accelerator = "gpu" if gpus else "cpu"
    if accelerator not in ("cpu", "gpu"):
        raise UserError(f"hardware.accelerator={accelerator!r} found, expected auto, cpu or gpu")
    if accelerator == "gpu" and not gpus:
        raise UserError(
            "hardware asks for a GPU and this machine shows none; use hardware=cpu or hardware=auto"
        )
    processes = max(gpus, 1) if wanted["processes"] == "auto" else int(wanted["processes"])
    if processes < 1 or (accelerator == "gpu" and processes > gpus):
        raise UserError(
            f"hardware.processes={processes} found, expected 1 to {gpus if gpus else 'the number of cores'}"
        )
    precision = wanted["precision"]
    if precision not in PRECISIONS:
        raise UserError(f"hardware.precision={precision!r} found, expected one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
    strategy = "ddp" if processes > 1 and wanted["strategy"] == "auto" else wanted["strategy"]
    return Hardware(accelerator, processes, strategy, precision)


def set_threads(cfg: Mapping[str, Any], processes: int) -> None:
    """Threads of torch: processes that each take all cores spin against each other."""
    threads = cfg["compute"]["threads"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is not None or processes > 1:
        torch.set_num_threads(int(threads) if threads is not None else max(cores // processes, 1))


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks instead of giving them back to the system.

    Activations are allocated and freed anew every step; as mapped blocks each costs page faults, which on small models
    takes as long as the arithmetic. Does nothing on another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def fit(
    ctx: StageContext,
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    *,
    max_steps: int,
    val_every: int,
    monitor: str,
    grad_clip: float | None = None,
    accumulate: int = 1,
) -> FitResult:
    """Trains a module, going on from unfinished training of the same artifact where there is some.

    Args:
        ctx: The stage's context; checkpoints lie in `ctx.work`, logs in `ctx.run_dir`.
        module: Logs `monitor` in validation.
        datamodule: Its training batch k is a pure function of k.
        max_steps: Optimizer steps in all.
        val_every: Optimizer steps between validations; one more is made at the end.
        monitor: Metric that chooses the best weights, the lowest being best.
        grad_clip: Largest norm of the gradient, None for no limit.
        accumulate: Micro-batches an optimizer step.
    """
    hardware = resolve_hardware(ctx.cfg)
    set_threads(ctx.cfg, hardware.processes)
    keep_freed_memory()
    ctx.work.mkdir(parents=True, exist_ok=True)
    last = ctx.work / "last.ckpt"
    resumed_step = _checkpoint_step(last) if _may_resume(ctx.cfg) else 0
    if resumed_step:
        rank_zero_info(f"{ctx.name}: goes on from step {resumed_step} ({last})")
    best = ModelCheckpoint(
        ctx.work / "best", "{step}", monitor=monitor, mode="min", save_top_k=1, auto_insert_metric_name=False
    )
    loggers = _loggers(ctx)
    _quieten()
    trainer = _make_trainer(
        ctx,
        hardware,
        loggers,
        _callbacks(ctx, best, monitor),
        max_steps=max_steps,
        val_check_interval=max(min(val_every, max_steps), 1) * accumulate,
        gradient_clip_val=grad_clip,
        accumulate_grad_batches=accumulate,
    )
    start = time.perf_counter()
    try:
        trainer.fit(module, datamodule, ckpt_path=str(last) if resumed_step else None, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        return FitResult(Path(best.best_model_path), resumed_step, time.perf_counter() - start)
    finally:
        _finish(loggers)


def _may_resume(cfg: Mapping[str, Any]) -> bool:
    if cfg["resume"] not in ("auto", "never"):
        raise UserError(f"resume={cfg['resume']!r} found, expected auto or never")
    return bool(cfg["resume"] == "auto")


def _make_trainer(
    ctx: StageContext, hardware: Hardware, loggers: list[Logger], callbacks: list[Callback], **schedule: Any
) -> L.Trainer:
    """A Trainer that counts steps, not epochs: the data's batch k depends on k alone."""
    batches = schedule["max_steps"] * schedule["accumulate_grad_batches"]
    return L.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.processes,
        strategy=hardware.strategy,
        precision=hardware.precision,  # type: ignore[arg-type]  # checked against PRECISIONS
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=max(min(int(ctx.cfg["callbacks"]["log_every"]), batches), 1),
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=ctx.run_dir,
        **schedule,
    )


def _callbacks(ctx: StageContext, best: ModelCheckpoint, monitor: str) -> list[Callback]:
    settings = ctx.cfg["callbacks"]
    return [
        ConfigInCheckpoint(ctx.cfg),
        RandomStates(),
        StepLines(int(settings["lines_every"]), monitor),
        ValidateAtTheEnd(),
        best,
        ModelCheckpoint(  # a callback of its own: with save_last of `best` the last can be stale
            ctx.work,
            filename="last",
            every_n_train_steps=int(settings["checkpoint_every"]),
            save_top_k=1,
            monitor=None,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        ),
    ]


def _loggers(ctx: StageContext) -> list[Logger]:
    settings = ctx.cfg["logger"]
    loggers: list[Logger] = [CSVLogger(ctx.run_dir, name=ctx.name, version="csv", flush_logs_every_n_steps=1)]
    if settings["wandb"]:
        loggers.append(_wandb(ctx, settings))
    return loggers


def _wandb(ctx: StageContext, settings: Mapping[str, Any]) -> WandbLogger:
    """W&B offline unless a key is configured; the run id lies in the work directory, so that a resumed run goes on."""
    import wandb  # slow to import, and logger=csv does without

    id_file = ctx.work / "wandb_id.txt"
    if not id_file.is_file():
        id_file.write_text(secrets.token_hex(4))
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "online" and not wandb.login(prompt=False):
        mode = "offline"
    return WandbLogger(
        project=settings["project"],
        name=f"{ctx.name}-{ctx.fingerprint[:8]}",
        group=settings["group"] or ctx.extra.get("sweep"),
        tags=list(settings["tags"]),
        save_dir=ctx.run_dir,
        id=id_file.read_text().strip(),
        resume="allow",
        mode=mode,
        settings=wandb.Settings(silent=True, console="off"),
        config=dict(ctx.cfg),
    )


def _finish(loggers: list[Logger]) -> None:
    """Ends the W&B run, so that the next job of a sweep starts one of its own."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish()


def _checkpoint_step(path: Path) -> int:
    if not path.is_file():
        return 0
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def _quieten() -> None:
    """Lightning's hints that do not apply here, and its own handler where Hydra's prints the same line."""
    if logging.getLogger().handlers:
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).handlers.clear()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed"):
        logging.getLogger(name).addFilter(_is_ours)
    for expected in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", expected)


def _is_ours(record: logging.LogRecord) -> bool:
    """Keeps lines of progress and drops Lightning's tips and device tables."""
    return not record.getMessage().startswith(_CHATTER)
