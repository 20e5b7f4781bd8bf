"""Gathers the runs of run.sh: results.jsonl, metrics.json and the table of README.md.

python report.py RUNS TOKENIZER OUT    run directories named after the data sets; the tokenizer artifact
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from experiments.results import Row, publish, read_metrics, table

DATA = ("asap", "acpas", "pop909")
COLUMNS = {
    "pieces": ("pieces",),
    "notes": ("notes",),
    "notes_exact": ("notes_exact",),
    "merged": ("notes_merged",),
    "cut": ("notes_cut",),
    "other": ("notes_other",),
    "codes_per_cell": ("codes_per_cell",),
    "tokens_per_note": ("tokens_per_note",),
    "onset_ms p50 / p95": ("onset_ms_p50", "onset_ms_p95"),
    "offset_ms p50 / p95": ("offset_ms_p50", "offset_ms_p95"),
    "beat_ms p50 / p95": ("beat_ms_p50", "beat_ms_p95"),
    "velocity_mae": ("velocity_mae",),
}
HEADLINES = (
    *("notes", "notes_exact", "codes_per_cell", "tokens_per_note", "onset_ms_p50", "onset_ms_p95"),
    *("offset_ms_p50", "offset_ms_p95", "beat_ms_p50", "beat_ms_p95", "velocity_mae"),
)
"""Keys of metrics.json: those of ASAP have no prefix, those of the other data sets have their name in front."""


def shown(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6f}" if 0.9 < value < 1 else f"{value:.3f}" if value < 5 else f"{value:.1f}"


def headlines(rows: list[Row]) -> dict[str, float]:
    measured = [row for row in rows if "stage" not in row]
    prefixes = ("", *(f"{name}/" for name in DATA[1:]))
    return {
        f"{prefix}{key}": row[key]
        for prefix, row in zip(prefixes, measured, strict=True)
        for key in HEADLINES
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    measured = [row for row in rows if "stage" not in row]
    lines = [
        [label, *(" / ".join(shown(row[key]) for key in keys) for row in measured)]
        for label, keys in COLUMNS.items()
    ]
    return {"results": table(["", *DATA], lines)}


def main(runs: Path, tokenizer: Path, out: Path) -> None:
    tokenized = json.loads((tokenizer / "artifact.json").read_text("utf-8"))["metrics"]
    rows = [{"data": name, **read_metrics(runs / name)} for name in DATA]
    rows.append({"stage": "tokenize", "data": DATA[0], **tokenized})
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
