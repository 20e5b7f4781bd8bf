"""Gathers the runs of run.sh: results.jsonl, metrics.json, bits.png and the table of README.md.

python report.py RUNS OUT    a folder with the run directories of both settings
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import Row, publish, read_metrics, table
from pianolm.report.piano_roll import figure

PEDALS = ("ignore", "extend")
KINDS = {"pitch": "pitch", "pattern": "pattern", "duration": "duration bins", "tempo": "tempo", "bar": "bars"}
HEADLINES = ("tokens_per_note", "constrained_bits_per_note", "notes_exact")


def read(run: Path) -> Row:
    """Figures of one setting: its training, score and round trip."""
    trained, scored, back = (read_metrics(run / part) for part in ("", "evaluate", "roundtrip"))
    return {
        "pedal": run.name,
        "trained_tokens": trained["tokens_seen"],
        "trained_notes": round(trained["tokens_seen"] / scored["tokens_per_note"]),
        **{name: scored[name] for name in ("pieces", "notes", "tokens_per_note", "bits_per_note")},
        **{name: value for name, value in scored.items() if name.startswith("constrained_bits_per_note")},
        **{name: back[name] for name in ("notes_exact", "notes_merged", "notes_cut", "notes_other")},
    }


def headlines(rows: list[Row]) -> dict[str, float]:
    return {f"{row['pedal']}/{name}": round(row[name], 6) for row in rows for name in HEADLINES}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [
        ["notes scored", *(f"{row['notes']:,}" for row in rows)],
        ["tokens a note", *(f"{row['tokens_per_note']:.2f}" for row in rows)],
        ["tokens trained on", *(f"{row['trained_tokens']:,}" for row in rows)],
        ["notes trained on, about", *(f"{row['trained_notes']:,}" for row in rows)],
        ["**bits a note**", *(f"**{row['constrained_bits_per_note']:.2f}**" for row in rows)],
        *(
            [f"of these {label}", *(f"{row[f'constrained_bits_per_note_{kind}']:.2f}" for row in rows)]
            for kind, label in KINDS.items()
        ),
        ["notes decoded exactly, %", *(f"{100 * row['notes_exact']:.4f}" for row in rows)],
        ["neither merged, cut nor exact", *(f"{row['notes_other']}" for row in rows)],
    ]
    return {"results": table(["", *(f"`data.pedal={row['pedal']}`" for row in rows)], lines)}


def draw(rows: list[Row], path: Path) -> None:
    """Bits a note of both settings, by kind of token."""
    picture = figure(7.0, 2.0)
    axes = picture.add_subplot()
    left = [0.0] * len(rows)
    for kind, label in KINDS.items():
        bits = [row[f"constrained_bits_per_note_{kind}"] for row in rows]
        axes.barh([row["pedal"] for row in rows], bits, left=left, label=label)
        left = [total + more for total, more in zip(left, bits, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="bits a note", ylabel="data.pedal")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    picture.savefig(path, dpi=110)


def main(runs: Path, out: Path) -> None:
    rows = [read(runs / pedal) for pedal in PEDALS]
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "bits.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
