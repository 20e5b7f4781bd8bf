"""Collects the runs of run.sh: results.json, the table of README.md, and curves over tokens seen."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

RUNS = {
    "base": "without velocity",
    "base_transposed": "without velocity, moved by up to 5 semitones",
    "finetune": "with velocity, from the base model",
    "scratch": "with velocity, from scratch",
    "scratch_double": "with velocity, from scratch, twice the tokens",
}
MARKS = "<!-- written by table.py -->", "<!-- end -->"
TRAINED = (
    "tokens_seen",
    "train/padding_fraction",
    "val/loss",
    "val/unigram_entropy",
    "train/tokens_per_second",
)


def read(run: Path) -> dict[str, Any]:
    """Figures of a run: of its training, of its whole validation split, and its curve of bits per note."""
    trained = json.loads((run / "metrics.json").read_text())
    scored = json.loads((run / "evaluate" / "metrics.json").read_text())
    stage = next(path.parent.name for path in run.glob("*/csv"))
    rows: list[dict[str, str]] = []
    for part in sorted((run / stage).glob("csv*/metrics.csv")):
        with part.open(newline="") as file:
            rows += csv.DictReader(file)
    seen = {int(row["step"]): float(row["tokens_seen"]) for row in rows if row.get("tokens_seen")}
    curve = [
        (int(row["step"]), float(row["val/bits_per_note"])) for row in rows if row.get("val/bits_per_note")
    ]
    per_step = max(seen.values()) / (max(seen) + 1)
    return {
        **{name: trained[name] for name in TRAINED},
        **{name: value for name, value in scored.items() if name.startswith(("bits_per", "tokens_per_note"))},
        "curve": [[round((step + 1) * per_step), round(bits, 3)] for step, bits in curve],
    }


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Bits per note of validation over tokens seen, without and with velocity side by side."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, velocity in zip(figure.subplots(1, 2), (False, True), strict=True):
        for name, row in found.items():
            if ("bits_per_note_velocity" in row) == velocity:
                tokens, bits = zip(*row["curve"], strict=True)
                axes.plot([t / 1e6 for t in tokens], bits, marker=".", label=RUNS[name])
        axes.set_xlabel("million tokens seen in this stage")
        axes.set_ylabel("val/bits_per_note")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = {name: read(arguments.runs / name) for name in RUNS}
    (arguments.out / "results.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    kinds = "pitch", "pattern", "tempo", "velocity"
    lines = [f"| run | tokens seen | padding | bits per note | {' | '.join(kinds)} |", "|---" * 8 + "|"]
    for name, row in found.items():
        parts = [row.get(f"bits_per_note_{kind}") for kind in kinds]
        shown = " | ".join("–" if part is None else f"{part:.2f}" for part in parts)
        seen, padding = f"{row['tokens_seen']:,}", f"{100 * row['train/padding_fraction']:.2f} %"
        lines.append(f"| {RUNS[name]} | {seen} | {padding} | {row['bits_per_note']:.2f} | {shown} |")
    readme = arguments.out / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
    readme.write_text(before + "\n".join([MARKS[0], *lines, MARKS[1]]) + rest.partition(MARKS[1])[2], "utf-8")
    draw(found, arguments.out / "curves.png")


if __name__ == "__main__":
    main()
