"""What the experiments share: rows of measurements, headline figures, and the tables of a README.

An experiment's folder has `results.jsonl` (one JSON object per line, one measurement each), `metrics.json` (the
headline figures as one flat object of numbers) and a README.md whose tables are written between two comments. Its
report.py has `headlines(rows)` and `tables(rows)`, which make the last two from the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS, METRICS, README = "results.jsonl", "metrics.json", "README.md"
_PATHS = ("artifact", "stage")
"""Keys of a run's `metrics.json` that are not figures."""
_SECTION, _OPENED = "<!-- {}: written by ", " -->"
_END = "<!-- end -->"

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the rows of a file in one step, so that a reader never sees half of them."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    partial.replace(path)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to a file."""
    write_rows(path, [*read_rows(path), row])


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Writes the headline figures, a flat object of numbers.

    Raises:
        TypeError: A value is not a number.
    """
    other = [
        key for key, value in metrics.items() if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    if other:
        raise TypeError(f"{path}: {', '.join(other)} found, expected numbers only")
    path.write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")


def read_metrics(run: Path) -> Row:
    """The figures in the `metrics.json` of a run directory, without its paths and names."""
    found = json.loads((run / METRICS).read_text("utf-8"))
    return {key: value for key, value in found.items() if key not in _PATHS}


def bits_without_bars(lm: Mapping[str, float]) -> float:
    """Bits a note of `evaluate=lm`, those of bar tokens not counted, so that layouts with and without them compare."""
    return float(lm["bits_per_note"] - lm.get("bits_per_note_bar", 0.0))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def replace_section(file: Path, name: str, lines: Iterable[str]) -> None:
    """Replaces what stands between `<!-- name: written by FILE -->` and the next `<!-- end -->`.

    Raises:
        ValueError: The file lacks one of the two comments.
    """
    begin = _SECTION.format(name)
    before, found, rest = file.read_text("utf-8").partition(begin)
    writer, opened, rest = rest.partition(_OPENED)
    _, end, after = rest.partition(_END)
    if not (found and opened and end):
        raise ValueError(f"{file}: expected the lines '{begin}FILE{_OPENED}' and {_END!r} around a table")
    file.write_text("\n".join([before + begin + writer + opened, *lines, _END]) + after, "utf-8")


def publish(
    out: Path,
    rows: Iterable[Mapping[str, Any]],
    headlines: Mapping[str, float],
    tables: Mapping[str, Iterable[str]],
) -> None:
    """Writes the rows, the headline figures and the named tables of README.md in an experiment's folder."""
    write_rows(out / RESULTS, rows)
    write_metrics(out / METRICS, headlines)
    for name, lines in tables.items():
        replace_section(out / README, name, lines)
