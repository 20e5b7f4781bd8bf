"""Shifts the velocities of validation pieces by ±10 and measures the shift after decoding.

    python shift.py CODEC STORE    directories that stage=velvq and stage=prepare published; JSON on standard output

A piece that would leave 1–127 is left out for that direction. Means are over frames, as in `val/velocity_mae`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from transfer import validation_cells

from pianolm.data.cell_store import CellStore
from pianolm.music.cells import Cells, segment_lengths
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.segment import VELOCITIES

SHIFTS = (10, -10)


def decoded(codec: VelocityCodec, cells: Cells) -> NDArray[np.int64]:
    """[S] velocities after encoding and decoding."""
    return codec.decode(codec.encode(cells), cells.sustain, cells.onset).astype(np.int64)


def measure(codec: VelocityCodec, store: CellStore, shift: int) -> dict[str, float]:
    shifts, plain_errors, moved_errors, frames, left_out = [], 0.0, 0.0, 0, 0
    for cells in validation_cells(store):
        played = cells.segment_velocity.astype(np.int64)
        if not 1 <= played.min() + shift <= played.max() + shift <= VELOCITIES:
            left_out += 1
            continue
        moved = replace(cells, segment_velocity=(played + shift).astype(np.uint8))
        length = segment_lengths(cells.sustain, cells.onset)
        before, after = decoded(codec, cells), decoded(codec, moved)
        shifts.append(((after - before) * length).sum() / length.sum())
        plain_errors += (np.abs(before - played) * length).sum()
        moved_errors += (np.abs(after - played - shift) * length).sum()
        frames += length.sum()
    off = np.abs(np.array(shifts) - shift)
    return {
        "pieces": len(shifts),
        "pieces_left_out": left_out,
        "mean_decoded_shift": round(float(np.mean(shifts)), 4),
        "error_mean": round(float(off.mean()), 4),
        "error_largest_of_a_piece": round(float(off.max()), 4),
        "velocity_mae_as_played": round(plain_errors / frames, 4),
        "velocity_mae_shifted": round(moved_errors / frames, 4),
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    given = VelocityCodec.from_directory(sys.argv[1]), CellStore.open(sys.argv[2])
    print(json.dumps({f"{shift:+d}": measure(*given, shift) for shift in SHIFTS}, indent=2))
