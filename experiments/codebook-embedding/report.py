"""Gathers the runs of run.sh: results.jsonl, metrics.json, bits.png and the table of README.md.

python report.py RUNS OUT    run directories named after the rows; rows of OUT that have no run there stay as they are
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from experiments.results import RESULTS, Row, publish, read_metrics, read_rows, table

COLUMNS = {
    "bits_per_note": "bits per note",
    "loss_l1": "L1",
    "loss_l2": "L2",
    "loss_pitch": "pitch",
    "loss_velocity": "velocity",
    "loss_tempo": "tempo",
}
HEADLINES = {
    "table": "table",
    "codebook": "codebook",
    "table_induction": "table, induction",
    "codebook_induction": "codebook, induction",
    "table_wide_induction": "table, wide, induction",
    "codebook_wide_induction": "codebook, wide, induction",
}
SHORT_STEPS = 150
"""Steps of most runs; longer ones are not in the picture."""


def headlines(rows: list[Row]) -> dict[str, float]:
    """Bits per note of the two embeddings, with plain weights and with induction initialisation."""
    found = {row["name"]: row["bits_per_note"] for row in rows}
    return {f"bits_per_note_{key}": found[name] for key, name in HEADLINES.items()}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [[row["name"], *(f"{row[key]:.2f}" for key in COLUMNS), row.get("commit", "")] for row in rows]
    return {"results": table(["", *COLUMNS.values(), "commit"], lines)}


def draw(rows: list[Row], path: Path) -> None:
    """Bits per note of all runs of the same size and length."""
    bodies = {"tiny, 150 steps of 2048 tokens": "tiny", "wide, 200 steps of 1024 tokens": "wide"}
    figure = Figure(figsize=(12, 8), layout="constrained")
    for axes, (title, model) in zip(figure.subplots(1, 2), bodies.items(), strict=True):
        shown = [
            row for row in rows if row["model"] == model and (model == "wide" or row["steps"] == SHORT_STEPS)
        ]
        names = [row["name"] for row in reversed(shown)]
        axes.barh(names, [row["bits_per_note"] for row in reversed(shown)], color="#7a8ba3")
        axes.set_xlim(19, 31)
        axes.set_title(title)
        axes.set_xlabel("validation bits per note")
    figure.savefig(path, dpi=100)


def gather(runs: Path) -> dict[str, Row]:
    """A row for each finished run, by name."""
    rows = {}
    for run in sorted(path.parent for path in runs.glob("*/metrics.json")):
        cfg = yaml.safe_load((run / ".hydra" / "config.yaml").read_text("utf-8"))
        metrics = read_metrics(run)
        figures = {key.removeprefix("val/"): metrics[key] for key in metrics if key.startswith("val/")}
        rows[run.name] = {
            "name": run.name,
            "model": "tiny" if cfg["model"]["width"] == 128 else "wide",
            "seed": cfg["seed"],
            "steps": cfg["trainer"]["max_steps"],
            "batch_tokens": cfg["loader"]["batch_tokens"],
            "lr": cfg["model"]["lr"],
            **{key: round(value, 4) for key, value in figures.items()},
        }
    return rows


def main(runs: Path, out: Path) -> None:
    found = gather(runs)
    rows = [found.pop(row["name"], row) for row in read_rows(out / RESULTS)]
    rows += found.values()
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "bits.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
