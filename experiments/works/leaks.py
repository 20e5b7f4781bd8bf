"""Counts the training pieces of mixes whose work stands in validation or test, which the ids alone do not tell.

python leaks.py ASAP ACPAS POP909 SCORES ROWS
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from experiments.results import append_row
from pianolm.data.reading import ReadPiece, read_record
from pianolm.data.sources import Record, collect
from pianolm.data.works.grouping import group_pieces
from pianolm.data.works.note_sketch import NoteSketch

Sketches = dict[Path, NoteSketch | None]


def sketch(record: Record, known: Sketches) -> NoteSketch | None:
    """The sketch of a file as stage prepare makes it, None for one that is rejected."""
    path = record.midi_path.resolve()
    if path not in known:
        result = read_record(record)
        known[path] = result.sketch if isinstance(result, ReadPiece) else None
    return known[path]


def count(name: str, parts: dict[str, Path], known: Sketches, rows: Path) -> None:
    """Appends what is found in one mix."""
    records = collect({"source": "mix", "parts": parts, "beats": "auto", "seed": 0}, Path()).records
    sketches = [sketch(record, known) for record in records]
    works = group_pieces(records, sketches, {})
    used = [(r, w) for r, w, s in zip(records, works, sketches, strict=True) if s is not None]
    sources_of = defaultdict(set)
    for record, work in used:
        sources_of[work.work].add(record.source)
    leaks = [record for record, work in used if work.own_split == "train" and work.moved]
    append_row(
        rows,
        {
            "mix": name,
            "pieces": len(used),
            "training_pieces": sum(work.own_split == "train" for _, work in used),
            "leaks": len(leaks),
            "leaks_of": {part: sum(record.source == part for record in leaks) for part in parts},
            "joined_by_notes": sum(work.found_by == "notes" for _, work in used),
            "works": len(sources_of),
            "works_in_several_sets": sum(len(sources) > 1 for sources in sources_of.values()),
        },
    )


def without_splits(asap: Path, out: Path) -> Path:
    """ASAP as it is published, without the table of splits."""
    for path in asap.iterdir():
        if path.name != "splits.csv":
            (out / path.name).symlink_to(path)
    return out


def main(asap: Path, acpas: Path, pop909: Path, scores: Path, rows: Path) -> None:
    known: Sketches = {}
    parts = {"asap": asap, "acpas": acpas, "pop909": pop909}
    count("ASAP with splits.csv, ACPAS, POP909", parts, known, rows)
    with tempfile.TemporaryDirectory() as folder:
        published = without_splits(asap.resolve(), Path(folder))
        count("ASAP as published, ACPAS, POP909", {**parts, "asap": published}, known, rows)
        count("ASAP as published alone", {"asap": published}, known, rows)
    count("ASAP with splits.csv, ACPAS, POP909, scores", {**parts, "scores": scores}, known, rows)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
