"""Makes results.jsonl, metrics.json and the tables of README.md from the sweeps of run.sh.

python report.py RUNS OUT    the folder of the sweeps, and the folder of the results; rows of absent sweeps stay
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from experiments.results import RESULTS, Row, publish, read_rows, table

SWEEPS = {
    "ties": ("tokenizer.ties",),
    "tempo": ("tokenizer.tempo",),
    "velocity": ("velvq",),
    "warm_start": ("finetune.from_scratch",),
    "codebook": ("codebook.method", "tokenizer.vocabulary.l1"),
}
"""Ablations, and the options that each varies."""
FIGURES = {
    "val/bits_per_note": "bits a note",
    "codes_per_cell": "codes a cell",
    "coverage_l1": "whole beats with a code",
}
BITS, CODES, SECONDS = "val/bits_per_note", "codes_per_cell", "seconds"


def rows_of(path: Path, name: str) -> list[Row]:
    """The jobs of a sweep that are done."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {
                "ablation": name,
                "changed": [f"{option}={job[option]}" for option in SWEEPS[name]],
                **{figure: float(job[figure]) for figure in (*FIGURES, SECONDS) if job.get(figure)},
            }
            for job in csv.DictReader(file)
            if job["state"] == "done"
        ]


def collected(runs: Path, kept: list[Row]) -> list[Row]:
    rows: list[Row] = []
    for name in SWEEPS:
        path = runs / name / "sweep.csv"
        rows += rows_of(path, name) if path.is_file() else [row for row in kept if row["ablation"] == name]
    return rows


def value_of(row: Row) -> float:
    return float(row[BITS] if BITS in row else row[CODES])


def headlines(rows: list[Row]) -> dict[str, float]:
    return {f"{row['ablation']}/{' '.join(row['changed'])}": value_of(row) for row in rows}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    trained = [row for row in rows if BITS in row]
    codebooks = [row for row in rows if CODES in row]
    results = []
    for row in trained:
        least = min(value_of(other) for other in trained if other["ablation"] == row["ablation"])
        bits, minutes = value_of(row), row[SECONDS] / 60
        results.append([f"`{row['changed'][0]}`", f"{bits:.2f}", f"{bits - least:+.2f}", f"{minutes:.0f}"])
    codes = [
        [f"`{' '.join(row['changed'])}`", f"{row[CODES]:.3f}", f"{100 * row['coverage_l1']:.2f} %"]
        for row in codebooks
    ]
    return {
        "results": table(["changed", FIGURES[BITS], "above the best of the ablation", "minutes"], results),
        "codebooks": table(["changed", FIGURES[CODES], FIGURES["coverage_l1"]], codes),
    }


def main(runs: Path, out: Path) -> None:
    rows = collected(runs, read_rows(out / RESULTS))
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
