"""Time and peak memory of fitting the codebook to millions of cells.

    python fit.py make STORE CELLS.npz    training cells, padded with copies whose timing is perturbed
    python fit.py fit CELLS.npz           fits a codebook to them; JSON on standard output

Two processes, so that the peak of the second is that of fitting alone. Start it from a shell: on Linux the reported
peak of a process starts at the memory of its parent.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, cells_to_frames, frames_to_cells, resolve_collisions
from pianolm.tokenizer.codebook_fit import fit_codebook
from pianolm.tokenizer.vocabulary import Vocabulary

CELLS = 4_000_000
JITTER_FRAMES = 1.0  # standard deviation of a note's start and of its end, each on its own
SEED = 0


def make(store: CellStore, path: Path) -> None:
    """Writes `sustain`, `onset` [CELLS] and `real`, the number of cells that are as played."""
    rng = np.random.default_rng(SEED)
    train = store.split("train")
    parts: list[Cells] = [store.joined(train)]
    real = count = min(len(parts[0]), CELLS)
    while count < CELLS:
        parts.append(altered(store.cells(int(rng.choice(train))), rng))
        count += len(parts[-1])
    masks = {name: np.concatenate([getattr(p, name) for p in parts])[:CELLS] for name in ("sustain", "onset")}
    np.savez(path, real=real, **masks)


def altered(cells: Cells, rng: np.random.Generator) -> Cells:
    """The same notes with every onset and offset perturbed."""
    notes, n_frames = cells_to_frames(cells), cells.n_beats * FRAMES
    onset = np.clip(notes["onset"] + jitter(notes.size, rng), 0, n_frames - 1)
    end = np.maximum(notes["end"] + jitter(notes.size, rng), onset + 1)
    moved, _ = resolve_collisions(onset, end, notes["pitch"], notes["velocity"], n_frames)
    return frames_to_cells(moved, cells.n_beats)


def jitter(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.rint(rng.normal(0, JITTER_FRAMES, count)).astype(np.int64)


def fit(path: Path) -> dict[str, float | str]:
    with np.load(path) as file:
        sustain, onset, real = file["sustain"], file["onset"], int(file["real"])
    start = time.perf_counter()
    result = fit_codebook(sustain, onset, Vocabulary())
    seconds = time.perf_counter() - start
    return {
        "cells": sustain.size,
        "cells_as_played": real,
        "distinct_cells": result.distinct_cells,
        "method": result.method,
        "codes_per_cell": result.codes_per_cell[result.method],
        "seconds": seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # Linux counts in KiB
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", store, cells]:
            make(CellStore.open(store), Path(cells))
        case ["fit", cells]:
            print(json.dumps(fit(Path(cells))))
        case _:
            sys.exit(__doc__)
