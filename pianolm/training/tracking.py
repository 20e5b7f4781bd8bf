"""What W&B knows of a stage beside its curves: what it published, from what, and the files to see and hear.

Every stage that trains has a run, which its logger starts. The others have one where W&B is in use: where a key is
configured, or WANDB_MODE asks for it.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pianolm.artifacts import RECORD, read_record
from pianolm.stage import Metrics, StageContext
from pianolm.training.wandb_key import has_key

if TYPE_CHECKING:
    import wandb

_LOGGER = "pianolm.training.loggers.wandb_logger"
_ROWS, _BYTES = 1000, 10_000_000
"""Longest table and largest page that are sent."""


def run_arguments(ctx: StageContext, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `wandb.init` for the run of a stage.

    Args:
        ctx: The stage's context.
        options: `project`, `group` (None: that of the sweep) and `tags`.
    """
    origin = {"fingerprint": ctx.fingerprint, "upstream": {role: str(p) for role, p in ctx.upstream.items()}}
    return {
        "project": options["project"],
        "name": f"{ctx.name}-{ctx.fingerprint[:8]}".rstrip("-"),
        "job_type": ctx.name,
        "group": options.get("group") or ctx.sweep,
        "tags": list(options.get("tags") or ()),
        "config": {**ctx.cfg, "artifact": origin},
    }


@contextmanager
def tracked(ctx: StageContext, trains: bool) -> Iterator[None]:
    """Ends the stage's run after the block, as failed where it raises; starts one for a stage that does not train."""
    options = next((e for e in ctx.cfg["logger"].values() if e and e.get("_target_") == _LOGGER), None)
    failed = True
    try:
        if options is not None and not trains and _in_use():
            from pianolm.training.wandb_run import start_run

            start_run(dir=ctx.run_dir, **run_arguments(ctx, options))
        yield
        failed = False
    finally:
        if _current_run() is not None:
            sys.modules["wandb"].finish(exit_code=int(failed))


def _in_use() -> bool:
    if mode := os.environ.get("WANDB_MODE"):
        return mode != "disabled"
    return has_key()


def _current_run() -> wandb.Run | None:
    module = sys.modules.get("wandb")
    return None if module is None else module.run


def log_result(ctx: StageContext, directory: Path, metrics: Metrics, publishes: bool) -> None:
    """Adds the result of a stage to its run, if it has one.

    The summary gets the metrics, which for a trained stage are those of the published weights; the artifacts it read
    and the one it published make the lineage.

    Args:
        ctx: The stage's context.
        directory: The published artifact, or the run directory of a stage that publishes none.
        metrics: The stage's metrics.
        publishes: Whether `directory` is an artifact.
    """
    run = _current_run()
    if run is None:
        return
    run.summary.update(metrics)
    if logged := dict(_media(directory)):
        run.log(logged)
    if not run.offline:  # W&B refuses it there; the run's configuration names them in any case
        for path in ctx.upstream.values():
            run.use_artifact(_artifact(path))
    if publishes:
        run.log_artifact(_artifact(directory))


def _artifact(path: Path) -> wandb.Artifact:
    """An artifact as W&B sees it: its record and its configuration. Equal ones are one version there."""
    import wandb

    record = read_record(path) if path.is_dir() else None
    if record is None:
        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", path.name), "given")
        artifact.add_reference(path.absolute().as_uri(), checksum=False)
        return artifact
    known = {name: record.get(name) for name in ("fingerprint", "upstream", "licences", "metrics")}
    artifact = wandb.Artifact(f"{record['stage']}-{record['fingerprint']}", record["stage"], metadata=known)
    for name in (RECORD, "config.yaml"):
        if (path / name).is_file():
            artifact.add_file(str(path / name))
    return artifact


def _media(directory: Path) -> Iterable[tuple[str, Any]]:
    """The pictures, sounds, tables and pages of a directory by name."""
    import wandb

    for path in sorted(directory.iterdir()):
        if path.suffix == ".png":
            yield f"pictures/{path.stem}", wandb.Image(str(path))
        elif path.suffix == ".wav":
            yield f"audio/{path.stem}", wandb.Audio(str(path))
        elif path.suffix == ".csv":
            yield f"tables/{path.stem}", _table(path)
        elif path.suffix == ".html" and path.stat().st_size <= _BYTES:
            yield f"pages/{path.stem}", wandb.Html(str(path), inject=False)


def _table(path: Path) -> wandb.Table:
    import wandb

    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        columns: list[str | int] = [*next(rows, [])]
        return wandb.Table(columns, [row for _, row in zip(range(_ROWS), rows, strict=False)])
