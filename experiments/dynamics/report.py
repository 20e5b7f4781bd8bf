"""Gathers the two runs of run.sh: results.jsonl, metrics.json, pieces.png and the table of README.md.

python report.py RUNS OUT    run directories named after the temperature
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from experiments.results import Row, publish, read_metrics, table

RUNS = {0: "model, most likely velocities", 1: "model, sampled at temperature 1"}
MEDIAN, HUMAN = "the piece's median for every note", "a second human"
MEASURES = ("velocity_mae", "velocity_r", "velocity_js")


def line(name: str, row: Row, *prefixes: str | None) -> list[str]:
    """Cells of the table: MAE, r and JS for each prefix of the metric keys, a dash where a figure is undefined."""
    keys = [None if prefix is None else f"{prefix}{key}" for prefix in prefixes for key in MEASURES]
    figures = [row.get(key) if key else None for key in keys]
    return [name, *("–" if value is None else f"{value:.{1 if value > 2 else 2}f}" for value in figures)]


def tables(rows: list[Row]) -> dict[str, list[str]]:
    first = rows[0]
    head = ["", *(f"{name}, {notes} notes" for notes in ("all", "paired") for name in ("MAE", "r", "JS"))]
    lines = [line(RUNS[row["temperature"]], row, "", "paired_") for row in rows]
    lines += [line(MEDIAN, first, "constant_", "paired_constant_"), line(HUMAN, first, None, "human_")]
    text = (
        f"{first['pieces']} performances, {first['notes']:,} notes. {first['paired_pieces']} of them have a second "
        f"human, who plays {100 * first['paired_fraction']:.1f} % of their notes: {first['paired_notes']:,} paired "
        "notes."
    )
    return {"results": [*table(head, lines), "", text]}


def headlines(rows: list[Row]) -> dict[str, float]:
    """Keys as `evaluate=dynamics` names them; those of the sampled velocities end in `_drawn`."""
    likely, drawn = rows
    keys = [f"{prefix}{key}" for prefix in ("", "constant_", "human_", "paired_") for key in MEASURES]
    found = {key: likely[key] for key in keys if key in likely}
    return found | {f"{key}_drawn": drawn[key] for key in keys if key.startswith(("velocity", "paired"))}


def draw(runs: Path, path: Path) -> None:
    """Correlation of each piece that has a second human, ordered by how well the two humans agree."""
    pieces = {}
    for run in RUNS:
        with (runs / str(run) / "pieces.csv").open(newline="", encoding="utf-8") as file:
            pieces[run] = {row["id"]: row for row in csv.DictReader(file) if row["second_human"]}
    human = {name: float(row["human_velocity_r"]) for name, row in pieces[0].items()}
    order = sorted(human, key=human.__getitem__)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([human[name] for name in order], "k_", markersize=12, label=HUMAN)
    for run, marker in zip(RUNS, "o.", strict=True):
        axes.plot([float(pieces[run][name]["paired_velocity_r"]) for name in order], marker, label=RUNS[run])
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("performances, ordered by how well two humans agree")
    axes.set_xticks([])
    axes.set_ylabel("r over paired notes")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def main(runs: Path, out: Path) -> None:
    rows = [{"temperature": run, **read_metrics(runs / str(run))} for run in RUNS]
    publish(out, rows, headlines(rows), tables(rows))
    draw(runs, out / "pieces.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
