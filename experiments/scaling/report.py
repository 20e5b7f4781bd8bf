"""Makes results.jsonl, metrics.json and the tables of README.md from the rows of the points.

python report.py RUNS OUT    the folder of point.py's runs, and the folder of the results
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from point import POINTS, SIZES

from experiments.results import RESULTS, Row, bits_without_bars, publish, read_rows, table


def collected(runs: Path, out: Path) -> list[Row]:
    """One row for each point that was measured, in the order of the plan; new rows replace old ones."""
    rows = {row["point"]: row for row in read_rows(out / RESULTS)}
    for point in POINTS:
        if (path := runs / point / "row.json").is_file():
            rows[point] = json.loads(path.read_text("utf-8"))
    return [rows[point] for point in POINTS if point in rows]


def headlines(rows: list[Row]) -> dict[str, float]:
    """Bits a note and minutes of each point."""
    return {f"{row['point']}/bits_per_note": bits_without_bars(row) for row in rows}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    """The grid of sizes and notes."""
    notes = sorted({row["train_notes"] for row in rows})
    lines = []
    for size in SIZES:
        of_size = {row["train_notes"]: row for row in rows if row["size"] == size}
        lines.append(
            [size, *(f"{bits_without_bars(of_size[n]):.2f}" if n in of_size else "–" for n in notes)]
        )
    return {"results": table(["parameters", *(f"{count:,} notes" for count in notes)], lines)}


def main(runs: Path, out: Path) -> None:
    rows = collected(runs, out)
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
