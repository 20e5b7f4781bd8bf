"""Errors of a velocity codec on the validation pieces of a cell store, without training.

    python transfer.py CODEC STORE    directories that stage=velvq and stage=prepare published; JSON on standard output

Pieces that stage velvq does not learn from (scores, flat velocities) are left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from pianolm.data.cell_store import CellStore
from pianolm.music.cells import Cells
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors
from pianolm.velvq.cell_cache import pieces_with_dynamics


def validation_cells(store: CellStore) -> Iterator[Cells]:
    """The cells of each validation piece whose velocities say something."""
    for index in pieces_with_dynamics(store, "validation"):
        yield store.cells(index)


def measure(codec: VelocityCodec, store: CellStore) -> dict[str, float]:
    """The metrics that stage velvq has under `val/`, and how many pieces and cells they are of."""
    errors, pieces, count = VelocityErrors.empty(codec.codebook_size), 0, 0
    for cells in validation_cells(store):
        codes = codec.encode(cells)
        decoded = codec.decode(codes, cells.sustain, cells.onset)
        errors.add(codes, cells.sustain, cells.onset, cells.segment_velocity, decoded)
        pieces, count = pieces + 1, count + len(cells)
    return {**errors.metrics(), "pieces": pieces, "cells": count}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(
        json.dumps(measure(VelocityCodec.from_directory(sys.argv[1]), CellStore.open(sys.argv[2])), indent=2)
    )
