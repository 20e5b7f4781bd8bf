"""Gathers the rows of run.sh: results.jsonl, metrics.json and the tables of README.md.

python report.py RUNS OUT    a folder with rows
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import Row, publish, read_rows, table


def of_kind(rows: list[Row], key: str) -> list[Row]:
    return [row for row in rows if key in row]


def found(rows: list[Row], finding: str, pieces_of: str = "asap and acpas") -> Row:
    return next(
        row for row in of_kind(rows, "finding") if (row["finding"], row["pieces_of"]) == (finding, pieces_of)
    )


def headlines(rows: list[Row]) -> dict[str, float]:
    alone, titled = (found(rows, name) for name in ("notes alone", "notes, composers and titles"))
    return {
        "precision": round(titled["precision"], 4),
        "recall": round(titled["recall"], 4),
        "notes_alone/precision": round(alone["precision"], 4),
        "notes_alone/recall": round(alone["recall"], 4),
        **{f"leaks/{row['mix']}": row["leaks"] for row in of_kind(rows, "mix")},
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    return {
        "results": _results(of_kind(rows, "finding")),
        "leaks": _leaks(of_kind(rows, "mix")),
        "noise": _noise(of_kind(rows, "wrong_and_missing")),
        "shingles": _shingles(of_kind(rows, "shingles")),
        "windows": _windows(of_kind(rows, "window_ms")),
        "coverage": [_coverage(rows)],
    }


def _results(rows: list[Row]) -> list[str]:
    header = ["found by", "pieces of", "pieces", "true pairs", "precision", "recall", "mean over works"]
    cells = [
        [
            *(row["finding"], row["pieces_of"], f"{row['pieces']:,}", f"{row['true_pairs']:,}"),
            *(f"{row['precision']:.4f}", f"{row['recall']:.4f}"),
            f"{row['precision_of_works']:.4f}, {row['recall_of_works']:.4f}",
        ]
        for row in rows
    ]
    return table(header, cells)


def _leaks(rows: list[Row]) -> list[str]:
    header = ["mix", "pieces", "training pieces", "leaks", "in these sets", "joined by notes"]
    cells = [
        [
            *(row["mix"], f"{row['pieces']:,}", f"{row['training_pieces']:,}", f"{row['leaks']}"),
            ", ".join(f"{part} {count}" for part, count in row["leaks_of"].items() if count) or "–",
            *(f"{row['joined_by_notes']}", f"{row['works_in_several_sets']}"),
        ]
        for row in rows
    ]
    return table([*header, "works in several sets"], cells)


def _noise(rows: list[Row]) -> list[str]:
    cells = [
        [
            f"{100 * row['wrong_and_missing']:.0f} %",
            *(f"{row['pieces']}", f"{row['precision']:.3f}", f"{row['recall']:.3f}"),
        ]
        for row in rows
    ]
    return table(["notes missing, and as many wrong", "pieces", "precision", "recall"], cells)


def _shingles(rows: list[Row]) -> list[str]:
    header = ["shingles", "one work: 1 %, 5 %, median", "others by the composer: median, 99 %, most"]
    figures = ("same_1_5_50", "other_50_99_100")
    return table(header, [[row["shingles"], *(_listed(row[key], 3) for key in figures)] for row in rows])


def _windows(rows: list[Row]) -> list[str]:
    """A row a window, with its two measurements side by side."""
    of = {(row["window_ms"], row["of"]): row for row in rows}
    cells = [
        [
            f"{window} ms",
            *(
                f"{of[window, name][key]:.3f}"
                for name in ("files", "renditions")
                for key in ("precision", "recall")
            ),
        ]
        for window in dict.fromkeys(row["window_ms"] for row in rows)
    ]
    header = [f"{name}: {key}" for name in ("files", "renditions") for key in ("precision", "recall")]
    return table(["notes together within", *header], cells)


def _coverage(rows: list[Row]) -> str:
    row = of_kind(rows, "coverage_same_0_1_5_50")[0]
    return (
        "Blocks of the shorter piece that the alignment covers, in these pairs: least, 1 %, 5 % and median of "
        f"one work {_listed(row['coverage_same_0_1_5_50'], 2)}; median, 99 % and most of other pairs "
        f"{_listed(row['coverage_other_50_99_100'], 2)}."
    )


def _listed(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def main(runs: Path, out: Path) -> None:
    rows = [row for path in sorted(runs.glob("*.jsonl")) for row in read_rows(path)]
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
