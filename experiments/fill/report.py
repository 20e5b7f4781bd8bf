"""Gathers the runs of run.sh: results.jsonl, metrics.json and the tables of README.md.

python report.py RUNS OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from experiments.results import Row, publish, read_metrics, table
from pianolm.evaluation.music_statistics import STATISTICS

GAPS = (4, 16)
BITS = {"both_sides": "given both sides", "past_only": "given the past alone"}


def read(runs: Path) -> list[Row]:
    rows = [
        {"run": path.name, "gap_beats": int(path.name.split("-")[1]), **read_metrics(path)}
        for path in sorted(runs.glob("gap-*"))
    ]
    return [*rows, {"run": "many", **json.loads((runs / "many.json").read_text("utf-8"))}]


def of_gap(rows: list[Row], beats: int) -> list[Row]:
    return [row for row in rows if row.get("gap_beats") == beats]


def over_seeds(rows: list[Row], key: str, digits: int) -> str:
    """Mean over the drawings of the gaps, with half their range."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return f"{np.mean(values):.{digits}f} ± {np.ptp(values) / 2:.{digits}f}" if values else "–"


def fewer(rows: list[Row]) -> str:
    """Bits a note that both sides save in each drawing of the gaps: mean, least and most."""
    past, both = ([row[f"bits_per_note_{key}"] for row in rows] for key in ("past_only", "both_sides"))
    saved = np.subtract(past, both)
    return f"{saved.mean():.2f} ({saved.min():.2f}–{saved.max():.2f})"


def by_run(rows: list[Row]) -> dict[str, Row]:
    return {row["run"]: row for row in rows}


def headlines(rows: list[Row]) -> dict[str, float]:
    found = {
        f"bits_per_note_{key}_{beats}": round(
            float(np.mean([row[f"bits_per_note_{key}"] for row in of_gap(rows, beats)])), 3
        )
        for beats in GAPS
        for key in BITS
    }
    many = by_run(rows)["many"]
    return found | {"fills": many["fills"], "fills_failed": many["failed"]}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [
        [
            f"bits a note of the human middle, {words}",
            *(over_seeds(of_gap(rows, beats), f"bits_per_note_{key}", 2) for beats in GAPS),
        ]
        for key, words in BITS.items()
    ]
    lines.append(
        [
            "fewer bits with both sides, in each drawing: mean (least–most)",
            *(fewer(of_gap(rows, beats)) for beats in GAPS),
        ]
    )
    for name, words in STATISTICS.items():
        digits = 2 if name in ("bar_likeness", "longer_than_a_bar") else 1
        for side, key in (("model", name), ("human", f"human_{name}")):
            figures = [over_seeds(of_gap(rows, beats), key, digits) for beats in GAPS]
            if any(one != "–" for one in figures):
                lines.append([f"{words}, {side}", *figures])
    return {"fills": table(["of the middle", *(f"{beats} beats" for beats in GAPS)], lines)}


def main(runs: Path, out: Path) -> None:
    rows = read(runs)
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
