"""ASAP (github.com/CPJKU/asap-dataset): human performances and MIDI scores of classical piano music.

The published folder has no splits. A `splits.csv` (columns midi_performance, split) beside `metadata.csv` sets them;
otherwise compositions are split by `data.seed`. A score has the split of its composition.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.cell_store import SPLITS
from pianolm.data.sources.base import (
    Collection,
    Record,
    annotated_beats,
    composition_id,
    data_root,
    read_table,
    seeded_splits,
    settle_splits,
    split_name,
)

LICENCE = "CC BY-NC-SA 4.0"
_EXPECTED = "the ASAP folder (the one with metadata.csv in it)"
_PUBLISHED = f"published at github.com/CPJKU/asap-dataset under {LICENCE}"
_PERFORMANCE = ("midi_performance", "performance_annotations", "performance")
_SCORE = ("midi_score", "midi_score_annotations", "score")
_COLUMNS = ("composer", "title", *_PERFORMANCE[:2], *_SCORE[:2])


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every performance and every score of `metadata.csv`."""
    root = data_root(data, _EXPECTED, _PUBLISHED)
    rows = read_table(root / "metadata.csv", _COLUMNS, _EXPECTED)
    tables = [path for path in (root / "metadata.csv", root / "splits.csv") if path.is_file()]
    splits = _splits(rows, root, data)
    records: dict[str, Record] = {}
    rejects = []
    for row in rows:
        composition = composition_id(row["composer"], row["title"])
        for midi_column, beat_column, kind in (_PERFORMANCE, _SCORE):
            midi, beats = row[midi_column], row[beat_column]
            if not midi or midi in records:
                continue
            if composition not in splits:
                rejects.append((midi, "splits.csv lists no performance of this composition"))
            elif not beats:
                rejects.append((midi, f"no {beat_column} in metadata.csv"))
            else:
                records[midi] = Record(
                    source="asap",
                    path=midi,
                    midi_path=root / midi,
                    beats=annotated_beats(data, root / beats),
                    composition=composition,
                    split=splits[composition],
                    kind=kind,
                    licence=LICENCE,
                    composer=row["composer"],
                    title=row["title"],
                    seeded=len(tables) == 1,
                )
    settled = tuple(settle_splits(records.values()))
    return Collection(root, settled, tuple(tables), tuple(dict.fromkeys(rejects)))


def _splits(rows: list[dict[str, str]], root: Path, data: Mapping[str, Any]) -> dict[str, str]:
    """Split of each composition, from `splits.csv` if it exists, else seeded."""
    compositions = {row["midi_performance"]: composition_id(row["composer"], row["title"]) for row in rows}
    path = root / "splits.csv"
    if not path.is_file():
        return seeded_splits(compositions.values(), data)
    splits: dict[str, str] = {}
    for row in read_table(path, ("midi_performance", "split"), "columns midi_performance and split"):
        composition = compositions.get(row["midi_performance"])
        if composition is not None:
            split = split_name(row["split"], path)
            splits[composition] = max(splits.get(composition, split), split, key=SPLITS.index)
    return splits
