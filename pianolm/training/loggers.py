"""Loggers of a training: CSV and W&B, both of which a resumed run continues.

Entries of the group `logger` with `_partial_: true` are completed here with the run's context.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from pianolm.stage import StageContext
from pianolm.training.resume import WANDB_ID
from pianolm.training.tracking import run_arguments


@dataclass(frozen=True)
class RunContext:
    """What entries with `_partial_: true` are completed with, as the argument `context`.

    Attributes:
        stage: The stage's context.
        resumed: Whether training continues from a checkpoint.
        monitor: The validation metric that chooses the best weights.
    """

    stage: StageContext
    resumed: bool
    monitor: str


def csv_logger(context: RunContext) -> Logger:
    """CSV files in the run directory, under `<stage>/csv`."""
    version = _csv_directory(context.stage, context.resumed) or "csv"
    return CSVLogger(context.stage.run_dir, context.stage.name, version, flush_logs_every_n_steps=1)


def wandb_logger(
    context: RunContext, project: str, group: str | None = None, tags: list[str] | None = None
) -> Logger:
    """W&B, offline unless a key is configured and the server answers.

    A resumed run continues under its id, which the work directory keeps.

    Args:
        context: The run's context.
        project: Name of the project.
        group: Name of the group; None for that of the sweep.
        tags: Tags of the run.
    """
    ctx = context.stage
    id_file = ctx.work / WANDB_ID
    _choose_id(id_file)
    arguments: dict[str, Any] = {
        **run_arguments(ctx, {"project": project, "group": group, "tags": tags}),
        "id": id_file.read_text().strip() if id_file.is_file() else None,
        "resume": "allow",
    }
    return WandbLogger(save_dir=ctx.run_dir, experiment=_start_wandb(ctx.run_dir, arguments), **arguments)


@rank_zero_only
def _choose_id(id_file: Path) -> None:
    if not id_file.is_file():
        id_file.write_text(secrets.token_hex(4))


@rank_zero_only
def _start_wandb(run_dir: Path, arguments: dict[str, Any]) -> Any:
    """Starts the run here instead of in Lightning, which passes a setting on that W&B warns about."""
    from pianolm.training.wandb_run import start_run  # W&B is slow to import, and logger=csv does without

    return start_run(dir=run_dir, **arguments)


@rank_zero_only
def _csv_directory(ctx: StageContext, resumed: bool) -> str:
    """Name of the directory for the rows of this run: `csv`, or the next one where a resumed run has rows already.

    Rows that a killed run wrote to another run directory are copied, so that the curves of a run directory are
    complete.
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


def log_pictures(loggers: list[Logger], pictures: Mapping[str, Path]) -> None:
    """Logs PNG files to W&B by name."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, path in pictures.items():
                logger.log_image(f"pictures/{name}", [str(path)])
