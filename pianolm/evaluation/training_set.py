"""The music that a model was trained on: its own cells, or the pieces measured that its list of works names."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pianolm.artifacts import read_record
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.copied_notes import NoteRuns
from pianolm.models import WORKS
from pianolm.music.cells import FrameNotes, cells_to_frames

_TRAINED_ON = ("tokens", "base", "cells")
"""Roles of upstream artifacts that lead from a model to its music."""


@dataclass(frozen=True)
class TrainingNotes:
    """Notes that a model was trained on.

    Attributes:
        runs: The notes.
        origin: Which pieces they are, in words.
    """

    runs: NoteRuns
    origin: str


def training_notes(model: Path, artifacts: Path, measured: CellStore) -> TrainingNotes | None:
    """The notes that a model was trained on, as far as they are at hand.

    They are those of the training split of the model's own cells, those of its base model included. A model that left
    its artifacts behind may name its works (`WORKS.csv`): then they are those of the measured pieces that are in the
    training split and among these works.

    Args:
        model: Directory of the model.
        artifacts: Where artifacts are looked for, besides the folder that the model lies in.
        measured: The cells that the model is measured on.

    Returns:
        None where none are known.
    """
    paths = training_cells(model, [artifacts, model.absolute().parents[1]])
    if paths is not None:
        stores = [CellStore.open(path) for path in paths]
        found = [(store, index) for store in stores for index in store.split("train")]
        origin = "the training pieces of the model's own cells"
    else:
        works = _works(model)
        found = [(measured, index) for index in measured.split("train") if _work(measured, index) in works]
        origin = f"the training pieces measured that {WORKS} of {model.name} names"
    if not found:
        return None
    return TrainingNotes(NoteRuns.of(_frames(found)), f"{len(found)} pieces: {origin}")


def _frames(pieces: Iterable[tuple[CellStore, int]]) -> Iterable[FrameNotes]:
    return (cells_to_frames(store.cells(index)) for store, index in pieces)


def _work(store: CellStore, index: int) -> tuple[str, str]:
    """Data set and work of a piece, as `WORKS.csv` names them."""
    row = store.pieces[index]
    return row.source, row.composition


def _works(model: Path) -> set[tuple[str, str]]:
    path = model / WORKS
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["source"], row["work"]) for row in csv.DictReader(file)}


def training_cells(model: Path, roots: Sequence[Path]) -> list[Path] | None:
    """The cell stores that a model was trained on; None where one is missing or the model has no record of them."""
    record = read_record(model)
    stores: dict[Path, None] = {}
    waiting = [record["upstream"] if record else {}]
    while waiting:
        for role, name in waiting.pop().items():
            if role not in _TRAINED_ON:
                continue
            path = next((path for root in roots for path in sorted(root.glob(f"*/{name}"))), None)
            made_from = read_record(path) if path is not None else None
            if path is None or made_from is None:
                return None
            if role == "cells":
                stores[path] = None
            waiting.append(made_from["upstream"])
    return list(stores) or None
