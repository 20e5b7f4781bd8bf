"""Stage `artifacts`: lists the published artifacts, verifies their files, and removes those that no run uses.

Reads `artifacts.*` and `paths.artifacts`. A run counts as long as its directory with `metrics.json` exists.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from pianolm.artifacts import ArtifactStore, problem_of, read_record
from pianolm.stage import Config, Metrics, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Prints a line for each artifact; with `artifacts.prune=true` removes those that no run uses."""
    for line in describe(ctx.cfg):
        print(line, flush=True)
    artifacts, unused, damaged = _survey(ctx.cfg)
    removed = unused if ctx.cfg["artifacts"]["prune"] else set()
    for path in removed:
        shutil.rmtree(path)
    return {"artifacts": len(artifacts), "damaged": len(damaged), "removed": len(removed)}


def describe(cfg: Config) -> list[str]:
    """A line for each artifact: what is done with it, its stage, name and size, and what is wrong with it."""
    artifacts, unused, damaged = _survey(cfg)
    verb = "remove" if cfg["artifacts"]["prune"] else "unused"
    lines = []
    for path in artifacts:
        state = verb if path in unused else "damaged" if path in damaged else "used"
        size_mb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20
        line = f"{state:<8}{path.parent.name:<10}{path.name}  {size_mb:8.1f} MB  {damaged.get(path, '')}"
        lines.append(line.rstrip())
    return lines


def _survey(cfg: Config) -> tuple[list[Path], set[Path], dict[Path, str]]:
    """All artifacts, those that no run uses, and what is wrong with those that are damaged."""
    store = ArtifactStore(Path(cfg["paths"]["artifacts"]).absolute())
    artifacts = list(store.all())
    used = used_artifacts(artifacts, store.runs())
    problems = {path: problem_of(path, hashes=bool(cfg["artifacts"]["verify"])) for path in artifacts}
    damaged = {path: problem for path, problem in problems.items() if problem is not None}
    return artifacts, set(artifacts) - used, damaged


def used_artifacts(artifacts: Iterable[Path], runs: Iterable[Path]) -> set[Path]:
    """Artifacts that the metrics of a run name, and all that these were made from.

    Args:
        artifacts: Artifact directories.
        runs: `metrics.json` files of runs.
    """
    by_name = {path.name: path for path in artifacts}
    waiting = [name for name in _named_by(runs) if name in by_name]
    used: set[Path] = set()
    while waiting:
        path = by_name[waiting.pop()]
        if path not in used:
            used.add(path)
            record = read_record(path) or {}
            waiting += [name for name in record.get("upstream", {}).values() if name in by_name]
    return used


def _named_by(runs: Iterable[Path]) -> list[str]:
    """Fingerprints in the metrics of runs."""
    names = []
    for file in runs:
        try:
            metrics = json.loads(file.read_text())
            names += [Path(str(metrics["artifact"])).name, *map(str, metrics.get("upstream", {}).values())]
        except (OSError, ValueError, KeyError, AttributeError):
            continue  # not readable: the run was damaged
    return names


STAGE = Stage(run, "Lists, verifies and prunes published artifacts.", publishes=False, describe=describe)
