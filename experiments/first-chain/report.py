"""Gathers the stages of run.sh: results.jsonl, metrics.json and the table of README.md.

python report.py RUNS OUT    run directories named after the stages
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import Row, publish, read_metrics, table

STAGES = ("velvq", "base", "finetune", "generate")
MODELS = ("base", "finetune")
KINDS = ("tempo", "pitch", "pattern", "velocity")


def headlines(rows: list[Row]) -> dict[str, float]:
    by_stage = {row["stage"]: row for row in rows}
    keys = ("val/loss", "val/unigram_entropy", "val/bits_per_note", "train/tokens_per_second")
    return {
        "val/velocity_mae": by_stage["velvq"]["val/velocity_mae"],
        **{f"{stage}/{key}": by_stage[stage][key] for stage in MODELS for key in keys},
        **{key: by_stage["generate"][key] for key in ("pieces", "valid_fraction", "distinct_velocities")},
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    """The two language models side by side."""
    models = [row for row in rows if row["stage"] in MODELS]

    def line(label: str, key: str, digits: int) -> list[str]:
        return [label, *(f"{row[key]:,.{digits}f}" for row in models)]

    kinds = [
        " / ".join(f"{row[key]:.2f}" if key in row else "–" for key in (f"val/loss_{kind}" for kind in KINDS))
        for row in models
    ]
    below = [f"{row['val/unigram_entropy'] - row['val/loss']:.2f}" for row in models]
    lines = [
        line("`val/loss` (nats per token)", "val/loss", 3),
        line("`val/unigram_entropy`", "val/unigram_entropy", 3),
        ["below the unigram entropy", *below],
        ["`val/loss_tempo` / `_pitch` / `_pattern` / `_velocity`", *kinds],
        line("`val/bits_per_note`", "val/bits_per_note", 1),
        line("`train/tokens_per_second`", "train/tokens_per_second", 0),
    ]
    return {"results": table(["", *MODELS], lines)}


def main(runs: Path, out: Path) -> None:
    rows = [{"stage": stage, **read_metrics(runs / stage)} for stage in STAGES]
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
