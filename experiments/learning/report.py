"""Gathers the runs of run.sh: results.jsonl, metrics.json, curves.png and the table of README.md.

python report.py RUNS OUT    run directories named as in `RUNS`
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from experiments.results import Row, publish, read_metrics, table

RUNS = {
    "base": "without velocity",
    "base_transposed": "without velocity, transposed by up to 5 semitones",
    "finetune": "with velocity, from the base model",
    "scratch": "with velocity, from scratch",
    "scratch_double": "with velocity, from scratch, twice the tokens",
}
TRAINED = (
    "tokens_seen",
    "train/padding_fraction",
    "val/loss",
    "val/unigram_entropy",
    "train/tokens_per_second",
)


KINDS = ("pitch", "pattern", "tempo", "velocity")


def read(run: Path) -> Row:
    """Figures of one run: training, score of the whole validation split, and its curve of bits per note."""
    trained, scored = read_metrics(run), read_metrics(run / "evaluate")
    rows: list[dict[str, str]] = []
    for path in sorted(run.glob("*/csv*/metrics.csv")):
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    tokens = {int(row["step"]): float(row["tokens_seen"]) for row in rows if row.get("tokens_seen")}
    curve = [
        (int(row["step"]), float(row["val/bits_per_note"])) for row in rows if row.get("val/bits_per_note")
    ]
    tokens_per_step = max(tokens.values()) / (max(tokens) + 1)
    return {
        "run": run.name,
        **{name: trained[name] for name in TRAINED},
        **{name: value for name, value in scored.items() if name.startswith(("bits_per", "tokens_per_note"))},
        "curve": [[round((step + 1) * tokens_per_step), round(bits, 3)] for step, bits in curve],
    }


def draw(rows: list[Row], path: Path) -> None:
    """Validation bits per note over tokens seen, without and with velocity side by side."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, velocity in zip(figure.subplots(1, 2), (False, True), strict=True):
        for row in rows:
            if ("bits_per_note_velocity" in row) == velocity:
                tokens, bits = zip(*row["curve"], strict=True)
                axes.plot([count / 1e6 for count in tokens], bits, marker=".", label=RUNS[row["run"]])
        axes.set_xlabel("million tokens seen in this stage")
        axes.set_ylabel("val/bits_per_note")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def headlines(rows: list[Row]) -> dict[str, float]:
    return {f"{row['run']}/bits_per_note": row["bits_per_note"] for row in rows}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = []
    for row in rows:
        parts = [row.get(f"bits_per_note_{kind}") for kind in KINDS]
        lines.append(
            [
                *(
                    RUNS[row["run"]],
                    f"{row['tokens_seen']:,}",
                    f"{100 * row['train/padding_fraction']:.2f} %",
                ),
                f"{row['bits_per_note']:.2f}",
                *("–" if part is None else f"{part:.2f}" for part in parts),
            ]
        )
    return {"results": table(["run", "tokens seen", "padding", "bits per note", *KINDS], lines)}


def main(runs: Path, out: Path) -> None:
    rows = [read(runs / name) for name in RUNS]
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "curves.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
