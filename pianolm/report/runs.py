"""Training runs on disk: finding them, naming them for a legend, and drawing one that has just finished."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pianolm.errors import UserError
from pianolm.report.curves import save_curves
from pianolm.report.sweep_plot import MOST_BEST, save_sweep
from pianolm.report.sweep_results import ranked, read_results
from pianolm.report.training_log import find_runs, read_curves

_MOST_CHARACTERS = 90
"""Longest list of a run's settings in the legend, in characters."""
Runs = dict[Path, dict[str, list[Path]]]
"""CSV files by run directory and trained stage."""


def selected_runs(settings: Mapping[str, Any]) -> Runs:
    """The runs that `plot.run` names; of a sweep those with the best validation metric.

    Raises:
        UserError: A directory does not exist, or has no CSV file of a trained stage.
    """
    names = settings["run"]
    if not names:
        raise UserError("plot.run is not set: stage=plot draws training runs; give plot.run=DIR")
    runs: Runs = {}
    for name in [names] if isinstance(names, str) else names:
        directories = _directories(name)
        below = {run: parts for path in directories for run, parts in _runs_below(path).items()}
        if not below and not any(read_results(path) for path in directories):
            raise UserError(
                f"plot.run={name}: no <stage>/csv/metrics.csv in it, so nothing was trained there; give the run "
                "directory of a training, where metrics.json was written"
            )
        runs |= below
    return runs


def _directories(name: object) -> list[Path]:
    path = Path(str(name)).expanduser()
    directories = [path] if path.is_dir() else [Path(match) for match in sorted(glob.glob(str(path)))]
    if not directories:
        raise UserError(f"plot.run={name}: no such directory; give a run directory, under outputs/")
    return [directory.resolve() for directory in directories]


def _runs_below(directory: Path) -> dict[Path, dict[str, list[Path]]]:
    """The runs at or below a directory; of a sweep its best ones."""
    runs = find_runs(directory)
    best = [directory / Path(one.directory).name for one in ranked(read_results(directory))[:MOST_BEST]]
    return {run: parts for run, parts in runs.items() if not best or run in best}


def draw_sweeps(settings: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draws `sweep.png` for a sweep that `plot.run` names, `sweep_<name>.png` for each of several.

    Returns:
        The pictures, without those of sweeps in which no job has a validation metric.
    """
    names = settings["run"]
    named = [path for name in ([names] if isinstance(names, str) else names) for path in _directories(name)]
    sweeps = {path: results for path in named if (results := read_results(path))}
    pictures = []
    for path, results in sweeps.items():
        picture = directory / ("sweep.png" if len(sweeps) == 1 else f"sweep_{path.name}.png")
        if save_sweep(results, picture, path.name):
            pictures.append(picture)
    return pictures


def run_names(runs: list[Path]) -> list[str]:
    """Short names: directories relative to the common one, each with the overrides that not all runs have."""
    if len(runs) < 2:
        return [run.name for run in runs]
    common = os.path.commonpath(runs)
    overrides = [_overrides(path) for path in runs]
    names = []
    for path, words in zip(runs, overrides, strict=True):
        distinct = " ".join(word for word in words if not all(word in others for others in overrides))
        if len(distinct) > _MOST_CHARACTERS:
            distinct = distinct[: _MOST_CHARACTERS - 1] + "…"
        names.append("  ".join(filter(None, [os.path.relpath(path, common), distinct])))
    return names


def _overrides(run_dir: Path) -> list[str]:
    """Command line overrides of a run, as Hydra saved them."""
    path = run_dir / ".hydra" / "overrides.yaml"
    return [str(word) for word in OmegaConf.load(path)] if path.is_file() else []


def picture_title(stage: str, names: list[str]) -> str:
    """Stage and name of one run, or stage and number of several."""
    return f"{stage}   {names[0]}" if len(names) == 1 else f"{stage}   {len(names)} runs"


def draw_finished(run_dir: Path, stage: str) -> Path | None:
    """Draws a stage that has just been trained into its run directory; None if it logged nothing."""
    curves = read_curves(find_runs(run_dir).get(run_dir, {}).get(stage, []))
    if not curves.columns:
        return None
    picture = run_dir / f"curves_{stage}.png"
    save_curves({run_dir.name: curves}, picture, picture_title(stage, [run_dir.name]))
    return picture


def draw_runs(runs: Runs, directory: Path) -> list[Path]:
    """Draws `curves_<stage>.png` for every stage that some runs trained.

    Returns:
        The pictures, without those of stages that logged no row yet.
    """
    names = dict(zip(runs, run_names(list(runs)), strict=True))
    pictures = []
    for stage in dict.fromkeys(stage for stages in runs.values() for stage in stages):
        curves = {names[run]: read_curves(stages[stage]) for run, stages in runs.items() if stage in stages}
        curves = {name: logged for name, logged in curves.items() if logged.columns}
        if curves:
            pictures.append(directory / f"curves_{stage}.png")
            save_curves(curves, pictures[-1], picture_title(stage, list(curves)))
    return pictures
