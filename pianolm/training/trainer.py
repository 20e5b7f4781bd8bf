"""Training, the same for every stage: the Trainer, its hardware, loggers, checkpoints and resuming."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import secrets
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from pianolm.errors import UserError
from pianolm.stage import StageContext
from pianolm.training.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    ConfigInCheckpoint,
    LastCheckpoint,
    RandomStates,
    StopEarly,
    ValidateAtTheEnd,
    step_display,
)

_EXPECTED_WARNINGS = (
    ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 with torch 2.13: an interface that torch renames
    ".*does not have many workers.*",  # a batch is a slice of a mapped file
    ".*Checkpoint directory .* exists and is not empty.*",  # the work of a resumed run
    ".*The dirpath has changed from .*",  # a run that is extended works in a directory of its own
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # batch k depends on k alone
)
_CHATTER = ("GPU available", "TPU available", "HPU available", "💡 Tip", "`Trainer.fit` stopped")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LAST, WANDB_ID = "last.ckpt", "wandb_id.txt"
"""Files of a run's work that go into its artifact, so that it can be extended."""
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
    """

    best: Path
    resumed_from_step: int


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
    patience: int | None = None,
    pictures: Callable[[FitResult], Mapping[str, Path]] | None = None,
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
        patience: Validations without a better metric after which training stops early; None for never.
        pictures: Called on the first process after training, while the loggers are open; the PNG files that it
            returns by name are logged to W&B.
    """
    hardware = resolve_hardware(ctx.cfg)
    set_threads(ctx.cfg, hardware.processes)
    keep_freed_memory()
    ctx.work.mkdir(parents=True, exist_ok=True)
    last = ctx.work / LAST
    start_from = last if ctx.cfg["resume"] != "never" else ctx.work / "none"
    given = given_checkpoint(ctx.cfg)
    if given is not None and not last.is_file():
        start_from = given
        _check_extension(given, ctx, module, max_steps)
    resumed_step = _checkpoint_step(start_from)
    if resumed_step:
        rank_zero_info(f"{ctx.name}: goes on from step {resumed_step} ({start_from})")
    best = BestCheckpoint(ctx.work / "best", monitor)
    loggers = _loggers(ctx, resumed=resumed_step > 0)
    _quieten()
    trainer = _make_trainer(
        ctx,
        hardware,
        loggers,
        _callbacks(ctx, best, last, monitor, patience),
        max_steps=max_steps,
        val_check_interval=max(min(val_every, max_steps), 1) * accumulate,
        gradient_clip_val=grad_clip,
        accumulate_grad_batches=accumulate,
    )
    try:
        trainer.fit(
            module, datamodule, ckpt_path=str(start_from) if resumed_step else None, weights_only=True
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        if trainer.global_step > resumed_step:
            # of the last step: the run can be extended, and is not trained again if it is killed while it publishes
            trainer.save_checkpoint(last, weights_only=False)
        result = FitResult(Path(best.best_model_path), resumed_step)
        if trainer.is_global_zero:
            _log_pictures(loggers, {**_curves(ctx), **(pictures(result) if pictures else {})})
        return result
    finally:
        _finish(loggers)


def given_checkpoint(cfg: Mapping[str, Any]) -> Path | None:
    """The checkpoint that `resume=PATH` names, None for auto and never.

    Raises:
        UserError: There is none at that path.
    """
    resume = str(cfg["resume"])
    if resume in ("auto", "never"):
        return None
    path = Path(resume).expanduser()
    path = path / LAST if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"resume={resume}: no checkpoint {path}; expected auto, never, the artifact directory of a trained "
            "stage or a .ckpt file"
        )
    return path


def _refuse_other_tokens(path: Path, ctx: StageContext, theirs: Mapping[str, Any]) -> None:
    """Raises UserError where a checkpoint's run had other options of the tokenizer."""
    own, other = (dict(cfg.get("tokenizer", {})) for cfg in (ctx.cfg, theirs))
    compared = {*own, *other} - (
        {"mode"} if ctx.name == "base" else set()
    )  # base's tokens never have velocities
    differ = [key for key in sorted(compared) if own.get(key) != other.get(key)]
    if differ:
        found, wanted = (", ".join(f"tokenizer.{key}={of.get(key)}" for key in differ) for of in (other, own))
        raise UserError(
            f"resume={path}: trained with {found}, but {wanted} is asked for; give the settings it was trained with"
        )


def _refuse_other_targets(path: Path, ctx: StageContext, theirs: Mapping[str, Any]) -> None:
    """Raises UserError where one of two runs learns under the grammar: their losses cannot be compared."""
    own, other = (
        {"grammar": False, **cfg.get("trainer", {}), **cfg.get(ctx.name, {})}["grammar"]
        for cfg in (ctx.cfg, theirs)
    )
    if own != other:
        raise UserError(
            f"resume={path}: trained with trainer.grammar={other}, but trainer.grammar={own} is asked for; give the "
            "settings it was trained with"
        )


def _refuse_other_shapes(path: Path, theirs: Mapping[str, list[int]], module: L.LightningModule) -> None:
    """Raises UserError where a checkpoint of the same settings is of another network: pianolm was another then."""
    own = {name: list(weight.shape) for name, weight in module.state_dict().items()}
    differ = sorted(name for name in {*own, *theirs} if own.get(name) != theirs.get(name))
    if differ:
        name = differ[0]
        raise UserError(
            f"resume={path}: {name} found with shape {theirs.get(name)}, expected {own.get(name)}: made by another "
            "version of pianolm, whose runs this one cannot extend; train anew with resume=never"
        )


def _check_extension(path: Path, ctx: StageContext, module: L.LightningModule, max_steps: int) -> None:
    """Refuses a checkpoint of another stage or model, or of a run that is as long already.

    Raises:
        UserError: Names what differs.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        theirs, step = saved["pianolm_config"], int(saved["global_step"])
        shapes = {name: list(weight.shape) for name, weight in saved["state_dict"].items()}
    except (KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"resume={path}: no checkpoint of pianolm ({type(error).__name__}); give the artifact directory of a "
            f"trained stage or the {LAST} in it"
        ) from error
    part = "velvq" if ctx.name == "velvq" else "model"
    own, other = (
        {k: v for k, v in cfg.get(part, {}).items() if k != "max_steps"} for cfg in (ctx.cfg, theirs)
    )
    if (saved.get("pianolm_stage"), other) != (ctx.name, own):
        raise UserError(
            f"resume={path}: of stage {saved.get('pianolm_stage')} with {part} {other}, but stage {ctx.name} with "
            f"{part} {own} is asked for; give the settings it was trained with"
        )
    if part == "model":
        _refuse_other_tokens(path, ctx, theirs)
        _refuse_other_targets(path, ctx, theirs)
        _refuse_other_shapes(path, shapes, module)  # that of a codec is not built yet
    if step >= max_steps:
        raise UserError(
            f"resume={path}: trained for {step} steps already, and {max_steps} are asked for; give a larger "
            f"{'velvq' if part == 'velvq' else 'trainer'}.max_steps"
        )
    id_file = path.with_name(WANDB_ID)
    if id_file.is_file() and not (ctx.work / WANDB_ID).is_file():  # the same run goes on there
        shutil.copy(id_file, ctx.work / WANDB_ID)


def _make_trainer(
    ctx: StageContext, hardware: Hardware, loggers: list[Logger], callbacks: list[Callback], **schedule: Any
) -> L.Trainer:
    """A Trainer that counts steps, not epochs: the data's batch k depends on k alone."""
    return L.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.processes,
        strategy=hardware.strategy,
        precision=hardware.precision,  # type: ignore[arg-type]  # checked against PRECISIONS
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=max(min(int(ctx.cfg["callbacks"]["log_every"]), schedule["max_steps"]), 1),
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=ctx.run_dir,
        **schedule,
    )


def _callbacks(
    ctx: StageContext, best: BestCheckpoint, last: Path, monitor: str, patience: int | None
) -> list[Callback]:
    settings = ctx.cfg["callbacks"]
    if patience is not None and patience < 1:
        raise UserError(f"trainer.patience={patience} found, expected at least 1 validation, or null")
    stopping = [] if patience is None else [StopEarly(monitor, patience)]
    return [
        *stopping,
        ConfigInCheckpoint(ctx.cfg, ctx.name),
        RandomStates(),
        step_display(ctx.name, settings, monitor, plain=bool(ctx.extra.get("sweep"))),
        ValidateAtTheEnd(),
        best,
        LastCheckpoint(last, int(settings["checkpoint_every"])),  # after `best`, whose choice it saves
    ]


def _loggers(ctx: StageContext, resumed: bool) -> list[Logger]:
    settings = ctx.cfg["logger"]
    version = _csv_directory(ctx, resumed) or "csv"
    loggers: list[Logger] = [CSVLogger(ctx.run_dir, ctx.name, version, flush_logs_every_n_steps=1)]
    if settings["wandb"]:
        loggers.append(_wandb(ctx, settings))
    return loggers


def _wandb(ctx: StageContext, settings: Mapping[str, Any]) -> WandbLogger:
    """W&B offline unless a key is configured; the run id lies in the work directory, so that a resumed run goes on."""
    import wandb  # slow to import, and logger=csv does without

    id_file = ctx.work / WANDB_ID
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


@rank_zero_only
def _csv_directory(ctx: StageContext, resumed: bool) -> str:
    """Name of the directory for the rows of this run: `csv`, or the next after those of the run that it goes on.

    Rows that a broken run wrote elsewhere are copied, so that the curves of a run directory are whole.
    """
    here, note = (ctx.run_dir / ctx.name).absolute(), ctx.work / "rows.txt"
    before = Path(note.read_text()) if note.is_file() else here
    note.write_text(str(here))
    if not resumed:
        for stale in here.glob("csv*/metrics.csv"):
            stale.unlink()
        return "csv"
    if before != here:
        for rows in before.glob("csv*/metrics.csv"):
            (here / rows.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(rows, here / rows.parent.name)
    parts = len(list(here.glob("csv*/metrics.csv")))
    return f"csv_{parts + 1}" if parts else "csv"


def _curves(ctx: StageContext) -> dict[str, Path]:
    from pianolm.report.runs import draw_finished  # matplotlib is slow to import, and this the end

    picture = draw_finished(ctx.run_dir, ctx.name)
    return {} if picture is None else {f"curves_{ctx.name}": picture}


def _log_pictures(loggers: list[Logger], pictures: Mapping[str, Path]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, path in pictures.items():
                logger.log_image(f"pictures/{name}", [str(path)])


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
