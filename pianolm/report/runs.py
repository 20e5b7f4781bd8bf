"""Training runs on disk: which are named, what to call them, and their curves."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pianolm.errors import UserError
from pianolm.report.curves import Curves, find_runs, read_curves, save_curves

_MOST_OVERRIDES = 90


"""Characters of a run's own settings in the legend."""


def wanted_runs(settings: Mapping[str, Any]) -> dict[Path, dict[str, list[Path]]]:
    """Run directories with the CSV files of each trained stage.

    Raises:
        UserError: A place that is named does not exist, or holds no CSV file of a trained stage.
    """
    named = settings["run"]
    if not named:
        raise UserError("stage=plot draws runs that trained something; name one with plot.run=DIR")
    runs: dict[Path, dict[str, list[Path]]] = {}
    for text in [named] if isinstance(named, str) else named:
        path = Path(str(text)).expanduser()
        places = [path] if path.is_dir() else [Path(place) for place in sorted(glob.glob(str(path)))]
        if not places:
            raise UserError(
                f"plot.run={text}: no such directory; give the directory of a run, under outputs/"
            )
        found = {path: parts for place in places for path, parts in find_runs(place.resolve()).items()}
        if not found:
            raise UserError(
                f"plot.run={text}: no <stage>/csv/metrics.csv in it, so nothing was trained there; give the run "
                "directory of a training, where metrics.json was written"
            )
        runs |= found
    return runs


def run_names(runs: list[Path]) -> list[str]:
    """Directories without what they share, each with the settings of its own that not all were given."""
    if len(runs) == 1:
        return [runs[0].name]
    shared = os.path.commonpath(runs)
    given = [_overrides(path) for path in runs]
    names = []
    for path, own in zip(runs, given, strict=True):
        special = " ".join(word for word in own if not all(word in other for other in given))
        if len(special) > _MOST_OVERRIDES:
            special = special[: _MOST_OVERRIDES - 1] + "…"
        names.append("  ".join(filter(None, [os.path.relpath(path, shared), special])))
    return names


def _overrides(run_dir: Path) -> list[str]:
    """What the command line of a run set, as Hydra keeps it."""
    path = run_dir / ".hydra" / "overrides.yaml"
    return [str(word) for word in OmegaConf.load(path)] if path.is_file() else []


def picture_title(stage: str, names: list[str]) -> str:
    """Of one run its directory too, of several their number."""
    return f"{stage}   {names[0]}" if len(names) == 1 else f"{stage}   {len(names)} runs"


def draw_finished(run_dir: Path, stage: str) -> Path | None:
    """Draws a stage that was just trained into its run directory; None where it logged nothing."""
    parts = find_runs(run_dir).get(run_dir, {}).get(stage, [])
    curves: Curves = read_curves(parts)
    if not curves.columns:
        return None
    picture = run_dir / f"curves_{stage}.png"
    save_curves({run_dir.name: curves}, picture, picture_title(stage, [run_dir.name]))
    return picture
