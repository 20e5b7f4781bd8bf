"""Makes metrics.json, the table of README.md and tempo.png from results.jsonl.

python report.py OUT    the folder of the results
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import RESULTS, Row, publish, read_rows, table
from pianolm.report.piano_roll import figure

FIGURES = ("tempo_bits_per_note", "changes_per_100_beats", "beat_ms_p50", "beat_ms_p95")

LINES = (("log50", "#c44e52", 1.2), ("log50_tuned", "#4c72b0", 1.8), ("file", "#222222", 0.8))


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        f"{row['data']}/{row['scheme']}/{key}": row[key] for row in rows if "scheme" in row for key in FIGURES
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    head = [
        "data",
        "scheme",
        "pieces",
        "notes",
        "tempo, bits a note",
        "changes in 100 beats",
        "beat ms p50 / p95",
    ]
    lines = [
        [
            *(row["data"], f"`{row['scheme']}`", f"{row['pieces']}", f"{row['notes']:,}"),
            *(f"{row['tempo_bits_per_note']:.3f}", f"{row['changes_per_100_beats']:.1f}"),
            f"{row['beat_ms_p50']:.1f} / {row['beat_ms_p95']:.1f}",
        ]
        for row in rows
        if "scheme" in row
    ]
    return {"results": table(head, lines)}


def draw(row: Row, path: Path) -> None:
    """The tempo of each beat of the example: as in the file, and as decoded."""
    picture = figure(8.0, 2.6)
    axes = picture.add_subplot()
    first = row["first_beat"]
    edges = range(first, first + len(row["file"]) + 1)
    for name, colour, width in LINES:
        axes.stairs(row[name], edges, baseline=None, color=colour, linewidth=width, label=name)
    axes.set(xlabel="beat", ylabel="BPM", title=row["example"])
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    picture.savefig(path, dpi=110)


def main(out: Path) -> None:
    rows = read_rows(out / RESULTS)
    publish(out, rows, headlines(rows), tables(rows))
    draw(next(row for row in rows if "example" in row), out / "tempo.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
