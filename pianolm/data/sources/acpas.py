"""ACPAS (cheriell.github.io/research/ACPAS_dataset): synthetic (S) and real (R) performances.

The MIDI parts come from piano-midi.de (CPM), A-MAPS and ASAP. `distinct_pieces.csv` has the published splits and says
which titles of ASAP and CPM are the same composition.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import (
    Collection,
    Record,
    annotated_beats,
    composition_id,
    data_root,
    read_table,
    settle_splits,
    split_name,
)
from pianolm.errors import UserError

LICENCE = "for study and research only; CPM by Bernd Krueger, piano-midi.de"
_EXPECTED = "the ACPAS folder (the one with distinct_pieces.csv and metadata_S.csv or metadata_R.csv in it)"
_PUBLISHED = f"published at cheriell.github.io/research/ACPAS_dataset {LICENCE}"
_PERFORMANCE = ("performance_MIDI", "performance_annotation", "performance")
_SCORE = ("MIDI_score", "score_annotation", "score")
_COLUMNS = ("piece_id", "folder", *_PERFORMANCE[:2], *_SCORE[:2])


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every performance of the metadata tables, and every score that is not also listed as a performance."""
    root = data_root(data, _EXPECTED, _PUBLISHED)
    pieces_path = root / "distinct_pieces.csv"
    columns = ("id", "composer", "split", "ASAP_title", "CPM_title")
    pieces = {row["id"]: row for row in read_table(pieces_path, columns, _EXPECTED)}
    metadata = [path for path in (root / "metadata_S.csv", root / "metadata_R.csv") if path.is_file()]
    if not metadata:
        raise UserError(f"data.root={root}: no metadata_S.csv or metadata_R.csv; expected {_EXPECTED}")
    rows = [row for path in metadata for row in read_table(path, _COLUMNS, _EXPECTED)]
    records: dict[str, Record] = {}
    rejects = []
    # Performances first: a file that is listed as both is a performance.
    for midi_column, beat_column, kind in (_PERFORMANCE, _SCORE):
        for row in rows:
            midi = f"{row['folder']}/{row[midi_column]}"
            if not row[midi_column] or midi in records:
                continue
            piece = pieces.get(row["piece_id"])
            if piece is None:
                rejects.append((midi, f"distinct_pieces.csv has no piece {row['piece_id']}"))
            elif not row[beat_column]:
                rejects.append((midi, f"no {beat_column} in the metadata"))
            else:
                records[midi] = Record(
                    source="acpas",
                    path=midi,
                    midi_path=root / midi,
                    beats=annotated_beats(data, root / row["folder"] / row[beat_column]),
                    composition=composition_id(piece["composer"], piece["ASAP_title"] or piece["CPM_title"]),
                    split=split_name(piece["split"], pieces_path),
                    kind=kind,
                    licence=LICENCE,
                    composer=piece["composer"],
                    title=piece["ASAP_title"] or piece["CPM_title"],
                )
    tables = (pieces_path, *metadata)
    return Collection(root, tuple(settle_splits(records.values())), tables, tuple(dict.fromkeys(rejects)))
