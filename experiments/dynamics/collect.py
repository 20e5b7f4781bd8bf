"""Gathers the two runs of run.sh into results.json, the table of README.md and pieces.png."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

MARKS = ("<!-- written by collect.py -->", "<!-- end -->")
RUNS = {"0": "the model, most likely velocities", "1": "the model, drawn at temperature 1"}
MEDIAN, HUMAN = "the piece's median for every note", "a second human"
Metrics = dict[str, float]


def line(name: str, metrics: Metrics, *prefixes: str | None) -> str:
    """A row of the table: MAE, r and JS by prefix of their keys, a dash for what there is none of."""
    keys = [None if p is None else f"{p}velocity_{of}" for p in prefixes for of in ("mae", "r", "js")]
    figures = [metrics.get(key) if key else None for key in keys]
    shown = ("–" if value is None else f"{value:.{1 if value > 2 else 2}f}" for value in figures)
    return f"| {name} | {' | '.join(shown)} |"


def table(found: dict[str, Metrics]) -> list[str]:
    any_run = next(iter(found.values()))
    head = [f"{name}, {where}" for where in ("all notes", "paired notes") for name in ("MAE", "r", "JS")]
    return [
        f"{any_run['pieces']} performances of {any_run['notes']:,} notes; {any_run['paired_pieces']} of them have a "
        f"second human, who plays {100 * any_run['paired_fraction']:.1f} % of their notes: {any_run['paired_notes']:,} "
        "paired notes.",
        "",
        f"| | {' | '.join(head)} |",
        "|---" * (1 + len(head)) + "|",
        *(line(RUNS[run], metrics, "", "paired_") for run, metrics in found.items()),
        line(MEDIAN, any_run, "constant_", "paired_constant_"),
        line(HUMAN, any_run, None, "human_"),
    ]


def draw(out: Path, path: Path) -> None:
    """The correlation of every piece that has a second human, in order of the humans' agreement."""
    rows = {}
    for run in RUNS:
        with (out / run / "pieces.csv").open(newline="", encoding="utf-8") as file:
            rows[run] = {row["id"]: row for row in csv.DictReader(file) if row["second_human"]}
    human = {name: float(row["human_velocity_r"]) for name, row in rows["0"].items()}
    order = sorted(human, key=human.__getitem__)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([human[name] for name in order], "k_", markersize=12, label=HUMAN)
    for run, marker in zip(RUNS, "o.", strict=True):
        axes.plot([float(rows[run][name]["paired_velocity_r"]) for name in order], marker, label=RUNS[run])
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("performances, by how well two humans agree")
    axes.set_xticks([])
    axes.set_ylabel("r over paired notes")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def main(out: Path, here: Path) -> None:
    found = {run: json.loads((out / run / "metrics.json").read_text()) for run in RUNS}
    for metrics in found.values():
        for key in ("artifact", "stage"):
            del metrics[key]
    named = {f"temperature {run}": metrics for run, metrics in found.items()}
    (here / "results.json").write_text(json.dumps(named, indent=2) + "\n", "utf-8")
    readme = here / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    readme.write_text(before + "\n".join([MARKS[0], *table(found), MARKS[1]]) + after, "utf-8")
    draw(out, here / "pieces.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
