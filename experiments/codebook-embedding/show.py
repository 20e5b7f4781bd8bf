"""Writes results.json, the table of README.md and bits.png from what trial.py wrote: `python show.py RESULTS.jsonl`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from trial import VARIANTS

HERE = Path(__file__).parent
MARKS = ("<!-- written by show.py -->", "<!-- end -->")
COLUMNS = {
    "bits_per_note": "bits a note",
    "loss_l1": "L1",
    "loss_l2": "L2",
    "loss_pitch": "pitch",
    "loss_velocity": "velocity",
    "loss_tempo": "tempo",
}
SMOOTHED = 10


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        values = [f"{row[name]:.2f}" for name in COLUMNS]
        lines.append(f"| {row['name']} | {' | '.join(values)} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    long = [row for row in rows if ", long" in row["name"]]
    short = [row for row in rows if row not in long and not (row["base"] or row["wide"] or row["repeats"])][
        ::-1
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), width_ratios=(3, 4), layout="constrained")
    left.barh([row["name"] for row in short], [row["bits_per_note"] for row in short], color="#7a8ba3")
    left.set_xlim(min(row["bits_per_note"] for row in short) - 1)
    left.set_xlabel(f"validation bits a note after {short[0]['steps'] * short[0]['batch_tokens']:,} tokens")
    for row in long:
        losses = np.convolve(row["train_losses"], np.ones(SMOOTHED) / SMOOTHED, "valid")
        tokens = (np.arange(losses.size) + SMOOTHED) * row["batch_tokens"]
        right.plot(tokens, losses, label=f"{row['name']}: {row['bits_per_note']:.1f} bits a note at the end")
    right.set_xlabel("training tokens")
    right.set_ylabel(f"training loss, nats a token, mean of {SMOOTHED} steps")
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    found = {row["name"]: row for row in map(json.loads, Path(sys.argv[1]).read_text().splitlines())}
    rows = [found[name] for name in VARIANTS if name in found]
    draw(rows, HERE / "bits.png")
    kept = [{k: v for k, v in row.items() if k != "train_losses"} for row in rows]
    (HERE / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
