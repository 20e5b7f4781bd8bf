"""Makes results.jsonl, metrics.json and the table of README.md from the runs of run.sh.

python report.py RUNS OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import METRICS, Row, publish, read_metrics, table

MODELS = {"pop": "the bundled model", "finetuned": "fine-tuned on 90 of the pieces"}
KINDS = ("pattern", "pitch", "velocity", "tempo", "bar")
_TRAINED = ("seconds", "tokens_seen", "steps")


def read(run: Path) -> Row:
    """Bits a note of a model, and what its training says of itself where there was one."""
    scored = read_metrics(run / "lm")
    row: Row = {"model": run.name, "pieces": scored["pieces"], "notes": scored["notes"]}
    row |= {key: value for key, value in scored.items() if key.startswith("bits_per_note")}
    trained = read_metrics(run) if (run / METRICS).is_file() else {}
    return row | {f"train_{key}": trained[key] for key in _TRAINED if key in trained}


def headlines(rows: list[Row]) -> dict[str, float]:
    return {f"{row['model']}/bits_per_note": round(row["bits_per_note"], 3) for row in rows}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [
        [
            MODELS[row["model"]],
            f"{row['bits_per_note']:.2f}",
            *(f"{row[f'bits_per_note_{kind}']:.2f}" for kind in KINDS),
        ]
        for row in rows
    ]
    return {"results": table(["model", "bits a note", *KINDS], lines)}


def main(runs: Path, out: Path) -> None:
    rows = [read(runs / name) for name in MODELS]
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
