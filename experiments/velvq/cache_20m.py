"""Time and memory of the cell cache of stage velvq for 20 million cells.

    python cache_20m.py STORE    a cell store of stage=prepare; JSON on standard output. About 1.5 GB of disk, Linux

The pieces of the store are repeated with every velocity changed by up to ±5 until there are 20 million cells. Measured
in processes of their own: building the cache, and gathering it into the tables that `velvq=segment` draws batches from.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pianolm.data.cell_store import SPLITS, CellStore, CellStoreWriter
from pianolm.velvq.cell_cache import CellCache, build_cache, segment_tables

CELLS = 20_000_000
MOVED = 5  # at most, in MIDI velocities
SLOTS = 6  # of the default codec


def make(store: CellStore, directory: Path) -> None:
    """Writes a store of at least CELLS cells whose pieces all have dynamics."""
    rng = np.random.default_rng(0)
    copies = -(-CELLS // int(store.cell_offset[-1]))
    with CellStoreWriter(directory) as writer:
        for index in (i for split in SPLITS for _ in range(copies) for i in store.split(split)):
            cells = store.cells(index)
            moved = cells.segment_velocity + rng.integers(-MOVED, MOVED + 1, cells.segment_velocity.size)
            changed = replace(cells, segment_velocity=np.clip(moved, 1, 127).astype(np.uint8))
            row = replace(store.pieces[index], flat=False)
            writer.add(row, changed, store.beats_sec(index), store.downbeat(index))


def status(process: int | str, name: str) -> float:
    """A memory figure of a process in MiB from /proc, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def work(what: str, directory: Path) -> dict[str, float]:
    """Builds the cache or the tables; runs in a process of its own."""
    store = CellStore.open(directory / "store")
    before, start = status("self", "RssAnon"), time.perf_counter()
    cache = build_cache(store, directory / "cache")
    if what == "tables":
        start = time.perf_counter()
        segment_tables(CellCache.open(cache, "train"), SLOTS, 2)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "own_mib_before": round(before),
        "peak_mib_with_mapped_files": round(status("self", "VmHWM")),
    }


def measured(what: str, directory: Path) -> dict[str, float]:
    """Runs `work` and samples its anonymous memory, without mapped files, which the system may drop."""
    command = [sys.executable, __file__, what, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None, "piped"
        own = 0.0
        while child.poll() is None:
            own = max(own, status(child.pid, "RssAnon"))
            time.sleep(0.01)
        line = child.stdout.read().splitlines()[-1]
    return {**json.loads(line), "own_mib_peak": round(own)}


if __name__ == "__main__":
    match sys.argv[1:]:
        case [("cache" | "tables") as part, folder]:
            print(json.dumps(work(part, Path(folder))))
        case [given]:
            with tempfile.TemporaryDirectory() as scratch:
                make(CellStore.open(given), Path(scratch) / "store")
                made = CellStore.open(Path(scratch) / "store")
                results: dict[str, object] = {"cells": int(made.cell_offset[-1]), "pieces": len(made)}
                results |= {part: measured(part, Path(scratch)) for part in ("cache", "tables")}
            print(json.dumps(results, indent=2))
        case _:
            sys.exit(__doc__)
