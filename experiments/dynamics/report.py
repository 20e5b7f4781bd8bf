"""Gathers the runs of run.sh: results.jsonl, metrics.json, the pictures and the tables of README.md.

    python report.py RUNS OUT

RUNS has the run directories that run.sh names. Rows of runs that are not there stay as they are in results.jsonl.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.results import METRICS, RESULTS, Row, publish, read_metrics, read_rows, table
from pianolm.report.piano_roll import figure

MEASURES = ("velocity_mae", "velocity_r", "velocity_js")
RESAMPLES = 2000


class Run(NamedTuple):
    """A run: its model, how the table calls it, what it learned from, and whether it is told the median."""

    model: str
    words: str
    trained_on: str
    told_median: bool


RUNS = {
    "constant": Run("constant", "one velocity for all pieces", "ASAP", False),
    "ridge": Run("ridge", "ridge", "ASAP", False),
    "ridge-squares": Run("ridge-squares", "ridge, squares too", "ASAP", False),
    "ridge-told": Run("ridge", "ridge", "ASAP", True),
    "ridge-squares-told": Run("ridge-squares", "ridge, squares too", "ASAP", True),
    "tiny": Run("language-model-tiny", "language model, 1.1 M, most likely", "ASAP", False),
    "tiny-drawn": Run("language-model-tiny-drawn", "the same, sampled", "ASAP", False),
    "pop": Run("language-model-pop", "language model `pop`, most likely", "POP909", False),
    "untold": Run("pianolm-dynamics", "**pianolm-dynamics**", "ASAP", False),
    "told": Run("pianolm-dynamics", "**pianolm-dynamics**", "ASAP", True),
    "told-take": Run("pianolm-dynamics-take", "a take (temperature 1)", "ASAP", True),
    "told-spread-0": Run("pianolm-dynamics-spread-0", "expected velocities as they are", "ASAP", True),
    "told-spread-1": Run("pianolm-dynamics-spread-1", "spread all the way", "ASAP", True),
    "ridge-squares-told-strict": Run(
        "ridge-strict", "ridge, squares too, notes in strict time", "ASAP", True
    ),
    "told-strict": Run("pianolm-dynamics-strict", "**pianolm-dynamics**, notes in strict time", "ASAP", True),
    "as-played": Run("pianolm-dynamics-as-played", "trained on notes as played alone", "ASAP", True),
    "as-played-strict": Run(
        "pianolm-dynamics-as-played-strict", "the same, notes in strict time", "ASAP", True
    ),
    "box": Run("pianolm-dynamics-box", "bundled pianolm-dynamics", "POP909", False),
    "box-told": Run("pianolm-dynamics-box", "bundled pianolm-dynamics", "POP909", True),
    "box-told-strict": Run(
        "pianolm-dynamics-box-strict", "bundled pianolm-dynamics, notes in strict time", "POP909", True
    ),
}
BEST = "told"
STRICT = "-strict"
"""Ending of the names of runs on notes in strict time."""
RIDGES = tuple(name for name in RUNS if name.startswith("ridge") and not name.endswith(STRICT))
DERIVED = {"median": ("constant_", "the piece's median"), "human": ("human_", "a second human")}
"""Rows that every run measures along, with the prefix of their metrics."""
WHOLE, POP909 = "-whole", "-pop909"
"""Endings of the names of runs on whole performances, and on POP909 instead of ASAP."""
SEEDS = 3
"""Most seeds of a model."""


def seed_suffix(seed: int) -> str:
    """Ending of the names of runs of a model that was trained with this seed."""
    return f"-seed{seed}" if seed else ""


def seeds_of(runs: Path, name: str, suffix: str) -> list[Path]:
    """The directories of a run and of the same with other seeds."""
    found = [runs / f"{name}{seed_suffix(seed)}{suffix}" for seed in range(SEEDS)]
    return [directory for directory in found if (directory / METRICS).is_file()]


class Piece(NamedTuple):
    """A row of pieces.csv."""

    composition: str
    figures: dict[str, float]


def pieces_of(run: Path) -> list[Piece]:
    with (run / "pieces.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = ("id", "path", "second_human")
    return [
        Piece(str(Path(row["path"]).parent), {k: float(v) for k, v in row.items() if v and k not in words})
        for row in rows
    ]


def mean_pieces(runs: Path, name: str, suffix: str) -> list[Piece]:
    """The pieces of a run, each with the mean of its figures over the seeds."""
    by_seed = [pieces_of(directory) for directory in seeds_of(runs, name, suffix)]
    return [
        Piece(
            same[0].composition,
            {key: float(np.mean([p.figures[key] for p in same])) for key in same[0].figures},
        )
        for same in zip(*by_seed, strict=True)
    ]


def interval(
    pieces: Sequence[Piece], values: NDArray[np.float64], notes: NDArray[np.float64]
) -> tuple[float, float]:
    """95 % interval of the mean weighted by notes: compositions are drawn anew, each with all its performances."""
    number = {name: i for i, name in enumerate(dict.fromkeys(piece.composition for piece in pieces))}
    at = [number[piece.composition] for piece in pieces]
    sums, weights = (np.bincount(at, one, len(number)) for one in (values * notes, notes))
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(number), (RESAMPLES, len(number)))
    means = sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _intervals(pieces: Sequence[Piece], prefix: str) -> Row:
    notes_key = "paired_notes" if prefix == "human_" else "notes"
    chosen = [piece for piece in pieces if f"{prefix}velocity_mae" in piece.figures]
    found: Row = {}
    for name in MEASURES:
        if chosen and f"{prefix}{name}" in chosen[0].figures:
            values = np.array([piece.figures[f"{prefix}{name}"] for piece in chosen])
            notes = np.array([piece.figures[notes_key] for piece in chosen])
            found[f"{name}_95"] = [round(one, 4) for one in interval(chosen, values, notes)]
    return found


def read(runs: Path, old: Sequence[Row]) -> list[Row]:
    """A row for each run, for what is measured along, for the gain over the ridge, and for each composer."""
    kept = {row["run"]: row for row in old if "run" in row}
    rows: list[Row] = []
    for suffix in ("", WHOLE, POP909):
        for name in RUNS:
            if seeds_of(runs, name, suffix):
                rows.append(_row(runs, name, suffix))
            elif f"{name}{suffix}" in kept:
                rows.append(kept[f"{name}{suffix}"])
        if suffix != POP909:
            rows += _derived(runs / f"{BEST}{suffix}", suffix)
            rows.append(_gain(runs, suffix))
        elif (runs / f"box-told{POP909}").is_dir():
            rows += _derived(runs / f"box-told{POP909}", suffix)
    return [*rows, *_composers(runs)]


def _row(runs: Path, name: str, suffix: str) -> Row:
    """Means over the seeds; `velocity_r_seeds` and the like have each seed's."""
    run = RUNS[name]
    about = {
        "run": f"{name}{suffix}",
        "model": run.model,
        "trained_on": POP909[1:].upper() if suffix == POP909 else run.trained_on,
        "told_median": run.told_median,
    }
    by_seed = [read_metrics(directory) for directory in seeds_of(runs, name, suffix)]
    left_out = ["constant_", "human_", "paired_constant_"]
    if name.endswith(STRICT):  # too few of their notes have a partner
        left_out.append("paired")
    own = {
        key: value
        if len(by_seed) == 1 or isinstance(value, int)
        else float(np.mean([one[key] for one in by_seed]))
        for key, value in by_seed[0].items()
        if not isinstance(value, dict) and not key.startswith(tuple(left_out))
    }
    if len(by_seed) > 1:
        own |= {f"{key}_seeds": [round(one[key], 4) for one in by_seed] for key in MEASURES}
    return {**about, **own, **_intervals(mean_pieces(runs, name, suffix), "")}


def _derived(directory: Path, suffix: str) -> list[Row]:
    metrics, pieces = read_metrics(directory), pieces_of(directory)
    rows = []
    for name, (prefix, _) in DERIVED.items():
        figures = {key: metrics[f"{prefix}{key}"] for key in MEASURES if f"{prefix}{key}" in metrics}
        if not figures:
            continue
        counted = {"pieces": metrics["pieces"], "notes": metrics["notes"]}
        if name == "human":
            counted = {"pieces": metrics["paired_pieces"], "notes": metrics["paired_notes"]}
        about = {"run": f"{name}{suffix}", "model": name, "trained_on": "", "told_median": name == "median"}
        rows.append({**about, **counted, **figures, **_intervals(pieces, prefix)})
    return rows


def _gain(runs: Path, suffix: str) -> Row:
    """How much higher the correlation is than that of the best ridge regression, over the same pieces."""
    ridge = best_ridge(runs, suffix)
    best, other = (mean_pieces(runs, name, suffix) for name in (BEST, ridge))
    gain = np.array(
        [one.figures["velocity_r"] - its.figures["velocity_r"] for one, its in zip(best, other, strict=True)]
    )
    notes = np.array([piece.figures["notes"] for piece in best])
    low, high = interval(best, gain, notes)
    value = float(np.average(gain, weights=notes))
    return {
        "gain": f"r over ridge{suffix}",
        "ridge": ridge,
        "value": round(value, 4),
        "value_95": [round(low, 4), round(high, 4)],
    }


def best_ridge(runs: Path, suffix: str) -> str:
    """The ridge regression with the highest correlation."""
    return max(RIDGES, key=lambda name: read_metrics(runs / f"{name}{suffix}")["velocity_r"])


def _composers(runs: Path) -> list[Row]:
    """Means over the whole performances of each composer."""
    best, ridge = (mean_pieces(runs, name, WHOLE) for name in (BEST, best_ridge(runs, WHOLE)))
    groups: dict[str, list[int]] = defaultdict(list)
    for i, piece in enumerate(best):
        groups[piece.composition.split("/")[0]].append(i)
    rows = []
    for name, members in sorted(groups.items()):
        notes = [best[i].figures["notes"] for i in members]
        paired = [i for i in members if "human_velocity_r" in best[i].figures]

        def mean(pieces: Sequence[Piece], key: str, at: Sequence[int], weights: Sequence[float]) -> float:
            return round(float(np.average([pieces[i].figures[key] for i in at], weights=weights)), 3)

        row: dict[str, Any] = {
            "composer": name,
            "performances": len(members),
            "velocity_r": mean(best, "velocity_r", members, notes),
            "ridge_velocity_r": mean(ridge, "velocity_r", members, notes),
            "velocity_mae": mean(best, "velocity_mae", members, notes),
            "constant_velocity_mae": mean(best, "constant_velocity_mae", members, notes),
        }
        if paired:
            weights = [best[i].figures["paired_notes"] for i in paired]
            row["human_velocity_r"] = mean(best, "human_velocity_r", paired, weights)
            row["paired_velocity_r"] = mean(best, "paired_velocity_r", paired, weights)
        rows.append(row)
    return rows


def headlines(rows: list[Row]) -> dict[str, float]:
    """Keys as `evaluate=dynamics` names them, after the name of the run."""
    wanted = [
        f"{name}{suffix}"
        for name in (
            BEST,
            "untold",
            f"{BEST}{STRICT}",
            *RIDGES,
            f"ridge-squares-told{STRICT}",
            "median",
            "human",
        )
        for suffix in ("", WHOLE)
    ]
    by_run = {row["run"]: row for row in rows if "run" in row}
    found = {
        f"{name}/{key}": by_run[name][key]
        for name in wanted
        for key in MEASURES
        if key in by_run.get(name, {})
    }
    return found | {row["gain"].replace(" ", "_"): row["value"] for row in rows if "gain" in row}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    by_run = {row["run"]: row for row in rows if "run" in row}
    gains = {row["gain"]: row for row in rows if "gain" in row}
    result = {
        "results": [*_table(by_run, "", ("r, paired notes",)), "", _said(gains["r over ridge"])],
        "whole": [*_table(by_run, WHOLE, ()), "", _said(gains[f"r over ridge{WHOLE}"])],
        "composers": _composer_table([row for row in rows if "composer" in row]),
    }
    if f"box-told{POP909}" in by_run:
        result["pop909"] = _table(by_run, POP909, ())
    return result


def _said(gain: Row) -> str:
    low, high = gain["value_95"]
    told = ", told the median" if RUNS[gain["ridge"]].told_median else ", not told the median"
    ridge = f"the best ridge regression ({RUNS[gain['ridge']].words}{told})"
    return f"r of pianolm-dynamics, told the median, over {ridge}: {gain['value']:+.3f} ({low:+.3f} to {high:+.3f})."


def _table(by_run: dict[str, Row], suffix: str, more: tuple[str, ...]) -> list[str]:
    names = [*RUNS, *DERIVED]
    names.remove("median")
    names.insert(1, "median")
    lines = []
    for name in names:
        row = by_run.get(f"{name}{suffix}")
        if row is None:
            continue
        words = RUNS[name].words if name in RUNS else DERIVED[name][1]
        told = "yes" if row["told_median"] else ""
        cells = [
            words,
            row["trained_on"],
            told,
            _figure(row, "velocity_mae", 1),
            _figure(row, "velocity_r", 2),
        ]
        cells.append(_figure(row, "velocity_js", 2))
        seeds = row.get("velocity_r_seeds")
        cells.append("" if seeds is None else f"{min(seeds):.2f}–{max(seeds):.2f}")
        if more:
            paired = row["velocity_r"] if name == "human" else row.get("paired_velocity_r")
            cells.append("–" if not paired else f"{paired:.2f}")
        lines.append(cells)
    head = [
        "",
        "trained on",
        "told the median",
        "MAE (95 %)",
        "r (95 %)",
        "JS (95 %)",
        "r of each seed",
        *more,
    ]
    return table(head, lines)


def _figure(row: Row, key: str, digits: int) -> str:
    value = row.get(key)
    if not value:  # the correlation of a constant
        return "–"
    limits = row.get(f"{key}_95")
    words = f"{value:.{digits}f}"
    return words if limits is None else f"{words} ({limits[0]:.{digits}f}–{limits[1]:.{digits}f})"


def _composer_table(rows: list[Row]) -> list[str]:
    columns = {
        "velocity_r": "r",
        "ridge_velocity_r": "r of the ridge",
        "paired_velocity_r": "r, paired notes",
        "human_velocity_r": "r of a second human",
        "velocity_mae": "MAE",
        "constant_velocity_mae": "MAE of the median",
    }
    lines = [
        [
            row["composer"],
            str(row["performances"]),
            *("–" if name not in row else f"{row[name]:.{1 if 'mae' in name else 2}f}" for name in columns),
        ]
        for row in rows
    ]
    return table(["whole performances", "", *columns.values()], lines)


def draw(runs: Path, path: Path) -> None:
    """Correlation of each performance, ordered by how well two humans agree."""
    best, ridge = (mean_pieces(runs, name, WHOLE) for name in (BEST, best_ridge(runs, WHOLE)))
    paired = [i for i, piece in enumerate(best) if "human_velocity_r" in piece.figures]
    paired.sort(key=lambda i: best[i].figures["human_velocity_r"])
    drawn: Figure = figure(9.0, 3.4)
    axes = drawn.add_subplot()
    sides = (
        (best, "human_velocity_r", "k_", "a second human"),
        (best, "paired_velocity_r", "o", "pianolm-dynamics"),
    )
    for pieces, key, marker, label in (*sides, (ridge, "paired_velocity_r", ".", "ridge, squares too")):
        axes.plot([pieces[i].figures[key] for i in paired], marker, label=label)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("whole performances, ordered by how well two humans agree")
    axes.set_xticks([])
    axes.set_ylabel("r over paired notes")
    axes.legend(frameon=False, loc="lower right")
    drawn.savefig(path, dpi=100)


def main(runs: Path, out: Path) -> None:
    old = read_rows(out / RESULTS) or read_rows(Path(__file__).with_name(RESULTS))
    rows = read(runs, old)
    publish(out, rows, headlines(rows), tables(rows))
    draw(runs, out / "pieces.png")
    if (rolls := runs / "page" / "rolls.png").is_file():
        shutil.copyfile(rolls, out / "rolls.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
