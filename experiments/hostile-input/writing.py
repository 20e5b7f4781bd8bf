"""Every piece of real data sets and of the demo, written as MIDI and read again: how many differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.written_pieces import differences_over_round_trips
from pianolm import Piece
from pianolm.data.reading import select_records
from pianolm.data.sources import collect
from pianolm.errors import UserError

_TIMES = 2
_LAST_SONG = 720
"""POP909's songs up to here are for training."""


def sets(data: Path | None, pieces: int) -> dict[str, dict[str, Any]]:
    """The options of the data sets: the demo, and POP909 and ASAP below a folder."""
    found: dict[str, dict[str, Any]] = {"demo": {"source": "demo", "pieces": pieces, "seed": 0}}
    if data is not None:
        found["POP909 001–720"] = {"source": "pop909", "root": str(data / "pop909")}
        found["ASAP"] = {"source": "asap", "root": str(data / "asap")}
    return found


def write_all(data: Path | None, pieces: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """A row for every set: pieces, notes, and how many pieces differ after being written and read twice.

    Args:
        data: The folder of POP909 and ASAP, None for the demo alone.
        pieces: Pieces of the demo.
        scratch: Where files go.
    """
    for name, options in sets(data, pieces).items():
        scratch.mkdir(parents=True, exist_ok=True)
        records = select_records(collect(options, scratch / "midi").records, options)
        row = {"set": name, "pieces": 0, "notes": 0, "rejected": 0, "differ": 0, "first": ""}
        for record in records:
            if name.startswith("POP909") and int(record.midi_path.stem) > _LAST_SONG:
                continue
            try:
                piece = Piece.from_midi(record.midi_path, record.beats)
            except UserError:
                row["rejected"] += 1
                continue
            row["pieces"] += 1
            row["notes"] += piece.frame_notes.size
            if other := differences_over_round_trips(piece, scratch / "again.mid", _TIMES):
                row["differ"] += 1
                row["first"] = row["first"] or f"{record.path}: {other[0]}"
        yield row
