"""Makes results.jsonl, metrics.json, the table of README.md and trials.png from the rows of the trials.

python report.py RUNS OUT    the folder of trial.py's runs, and the folder of the results
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trial import TRIALS

from experiments.results import RESULTS, Row, bits_without_bars, publish, read_rows, table
from pianolm.report.piano_roll import figure


def collected(runs: Path, out: Path) -> list[Row]:
    """One row for each trial that was measured, in the order of the plan; new rows replace old ones."""
    rows = {row["trial"]: row for row in read_rows(out / RESULTS)}
    for name in TRIALS:
        if (path := runs / name / "row.json").is_file():
            rows[name] = json.loads(path.read_text("utf-8"))
    return [rows[name] for name in TRIALS if name in rows]


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        f"{row['trial']}/{key}": value
        for row in rows
        for key, value in (("bits_per_note", bits_without_bars(row)), ("peak_rss_mb", row["peak_rss_mb"]))
    }


def line(row: Row, reference: Row | None) -> list[str]:
    difference = "–" if reference is None else f"{bits_without_bars(row) - bits_without_bars(reference):+.2f}"
    return [
        row["trial"],
        f"`{' '.join(row['changed'])}`" if row["changed"] else "–",
        f"{row['parameters'] / 1e6:.1f} M",
        f"{row['steps']:,}",
        f"{row['tokens_seen'] / 1e6:.2f}",
        f"{row['tokens_seen'] / row['steps'] / row['seconds_per_step']:,.0f}",
        f"{row['peak_rss_mb'] / 1024:.1f}",
        f"{bits_without_bars(row):.2f}",
        difference,
    ]


def tables(rows: list[Row]) -> dict[str, list[str]]:
    head = ["trial", "changed", "parameters", "steps", "million tokens", "tokens a second", "peak GiB"]
    head += ["bits a note, bars not counted", "against the reference"]
    reference = next((row for row in rows if row["trial"] == "reference"), None)
    others = sorted((row for row in rows if row is not reference), key=bits_without_bars)
    lines = [] if reference is None else [line(reference, None)]
    return {"results": table(head, lines + [line(row, reference) for row in others])}


def draw(rows: list[Row], path: Path) -> None:
    """Bits a note of each trial, the best on top, with the reference as a line."""
    ordered = sorted(rows, key=bits_without_bars, reverse=True)
    picture = figure(7.0, 0.8 + 0.28 * len(ordered))
    axes = picture.add_subplot()
    bits = [bits_without_bars(row) for row in ordered]
    names = [row["trial"] for row in ordered]
    colours = ["#222222" if name == "reference" else "#4c72b0" for name in names]
    axes.barh(names, bits, color=colours)
    if "reference" in names:
        axes.axvline(bits[names.index("reference")], color="#222222", linewidth=0.8)
    axes.set(xlabel="bits a note, bar tokens not counted", xlim=(min(bits) - 0.5, max(bits) + 0.2))
    picture.savefig(path, dpi=110)


def main(runs: Path, out: Path) -> None:
    rows = collected(runs, out)
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "trials.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
