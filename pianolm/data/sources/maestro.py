"""MAESTRO (magenta.tensorflow.org/datasets/maestro): performances of the International Piano-e-Competition.

Read are the MIDI files with the published split. The recordings have no beats: their tempo map is the default one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import (
    Collection,
    Record,
    beat_choice,
    composition_id,
    data_root,
    read_table,
    settle_splits,
    split_name,
)
from pianolm.errors import UserError

LICENCE, ATTRIBUTION = "CC BY-NC-SA 4.0", "MAESTRO, Google LLC"
_EXPECTED = "the MAESTRO folder (the one with maestro-v3.0.0.csv and the folders of the years in it)"
_PUBLISHED = f"published at magenta.tensorflow.org/datasets/maestro under {LICENCE}"
_COLUMNS = ("canonical_composer", "canonical_title", "split", "midi_filename")


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every performance of the table."""
    root = data_root(data, _EXPECTED, _PUBLISHED)
    tables = sorted(root.glob("maestro-v*.csv")) or sorted(root.glob("maestro-v*/maestro-v*.csv"))
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "no maestro-v3.0.0.csv"
        raise UserError(f"data.root={data['root']}: {found}; expected {_EXPECTED}, {_PUBLISHED}")
    table, beats = tables[0], beat_choice(data)
    records = [
        Record(
            source="maestro",
            path=row["midi_filename"],
            midi_path=table.parent / row["midi_filename"],
            beats=beats,
            composition=composition_id(row["canonical_composer"], row["canonical_title"]),
            split=split_name(row["split"], table),
            licence=LICENCE,
            attribution=ATTRIBUTION,
            composer=row["canonical_composer"],
            title=row["canonical_title"],
        )
        for row in read_table(table, _COLUMNS, _EXPECTED)
    ]
    return Collection(table.parent, tuple(settle_splits(records)), (table,))
