"""Piano scores with exact beats under free licences, in sets: MIDI, beat annotations as in ASAP, and `metadata.csv`.

`metadata.csv` lies at the top or in each set's folder; its paths are relative to where it lies. Works are split by
`data.seed`. Pieces that stand in ASAP (column `asap_work`) are never used, so that a model may be evaluated on ASAP.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import (
    Collection,
    Excluded,
    Record,
    annotated_beats,
    data_root,
    read_table,
    seeded_splits,
)
from pianolm.errors import UserError

_EXPECTED = "the folder of scores or one of its sets (with metadata.csv in it)"
_COLUMNS = ("midi", "annotations", "composer", "title", "work_id", "licence", "attribution", "asap_work")


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every piece of the tables that does not stand in ASAP."""
    root = data_root(data, _EXPECTED)
    tables = _tables(root)
    rows = [(table.parent, row) for table in tables for row in read_table(table, _COLUMNS, _EXPECTED)]
    splits = seeded_splits((row["work_id"] for _, row in rows), data)
    records, rejects, excluded = [], [], []
    for folder, row in rows:
        midi, beats = folder / row["midi"], folder / row["annotations"]
        path = midi.relative_to(root).as_posix()
        if row["asap_work"]:
            excluded.append(
                Excluded(path, f"{row['composer']}: {row['title']}", f"is ASAP's {row['asap_work']}")
            )
        elif problem := _problem(row, midi, beats):
            rejects.append((path, problem))
        else:
            records.append(
                Record(
                    source="scores",
                    path=path,
                    midi_path=midi,
                    beats=annotated_beats(data, beats),
                    composition=f"scores/{row['work_id']}",
                    split=splits[row["work_id"]],
                    kind="score",
                    licence=row["licence"],
                    attribution=row["attribution"],
                    composer=row["composer"],
                    title=row["title"],
                    seeded=True,
                )
            )
    return Collection(root, tuple(records), tuple(tables), tuple(rejects), excluded=tuple(excluded))


def _tables(root: Path) -> list[Path]:
    if (root / "metadata.csv").is_file():
        return [root / "metadata.csv"]
    tables = sorted(root.glob("*/metadata.csv"))
    if not tables:
        raise UserError(f"data.root={root}: no metadata.csv; expected {_EXPECTED}")
    return tables


def _problem(row: Mapping[str, str], midi: Path, beats: Path) -> str | None:
    """Why a listed piece cannot be used, None where it can."""
    if not row["midi"] or not midi.is_file():
        return "listed in metadata.csv, but there is no such file"
    if not row["annotations"] or not beats.is_file():
        return f"no annotations: {row['annotations'] or 'none listed'}"
    if not row["work_id"] or not row["licence"]:
        return f"no {'licence' if row['work_id'] else 'work_id'} in metadata.csv"
    return None
