"""The music that a published model was trained on, found by the fingerprints in its record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pianolm.artifacts import read_record
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.copied_notes import NoteRuns
from pianolm.music.cells import cells_to_frames

_TRAINED_ON = ("tokens", "base", "cells")
"""Roles of upstream artifacts that lead from a model to its music."""


def training_notes(model: Path, artifacts: Path) -> NoteRuns | None:
    """The notes of the training split of the model's own cells, those of its base model included.

    Args:
        model: Directory of the model.
        artifacts: Where artifacts are looked for, besides the folder that the model lies in.

    Returns:
        None where they are not known.
    """
    stores = training_cells(model, [artifacts, model.absolute().parents[1]])
    if stores is None:
        return None
    return NoteRuns.of(
        cells_to_frames(store.cells(index))
        for store in map(CellStore.open, stores)
        for index in store.split("train")
    )


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
