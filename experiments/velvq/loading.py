"""CPU time of a training step, and the share of it that is spent on getting its batch.

    python loading.py STORE    a cell store of stage=prepare; JSON on standard output

One thread and no loader processes, as stage velvq runs by default; medians over steps. CPU time depends less on other
processes than wall time. The step is measured without Lightning, so the share is, if anything, too high.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.config import composed
from pianolm.data.cell_store import CellStore
from pianolm.tokenizer.velocity.segment import segment_least
from pianolm.velvq.cell_cache import CellCache, build_cache, segment_tables
from pianolm.velvq.datamodule import Draws, FrameBatches, SegmentBatches
from pianolm.velvq.module import settings_of

JOBS = (
    "velvq=segment",
    "velvq=segment velvq.codebook_size=128",
    "velvq=segment velvq.codebook_size=256",
    "velvq=segment velvq.codebook_size=1024",
    "velvq=segment velvq.max_segments=2",
    "velvq=segment velvq.max_segments=8",
    "velvq=frame",
)
WARM_UP, STEPS = 10, 60


def batches_of(velvq: Any, cells: CellCache) -> SegmentBatches | FrameBatches:
    draws = Draws(velvq["batch_cells"], velvq["seed"], WARM_UP + STEPS)
    if velvq["form"] == "segment":
        tables = segment_tables(cells, velvq["max_segments"], segment_least(velvq["codebook_size"]))
        return SegmentBatches(tables, draws)
    return FrameBatches(cells, draws)


def measure(velvq: Any, cells: CellCache) -> dict[str, float]:
    torch.manual_seed(0)
    batches, network = batches_of(velvq, cells), settings_of(velvq).network(distributed=False)
    optimizer = torch.optim.Adam(network.parameters(), velvq["lr"])
    loading, learning = [], []
    for step in range(WARM_UP + STEPS):
        start = time.process_time()
        batch = batches[step]
        loaded = time.process_time()
        loss = network.training_losses(batch, lambda count: 1 / torch.as_tensor(count).clamp(min=1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loading.append(loaded - start)
        learning.append(time.process_time() - loaded)
    load_ms, learn_ms = (1000 * float(np.median(seconds[WARM_UP:])) for seconds in (loading, learning))
    return {
        "batch_ms": round(load_ms, 2),
        "step_ms": round(load_ms + learn_ms, 2),
        "share": round(load_ms / (load_ms + learn_ms), 4),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        train = CellCache.open(build_cache(CellStore.open(sys.argv[1]), Path(scratch)), "train")
        found = {job: measure(composed(*job.split())["velvq"], train) for job in JOBS}
    print(json.dumps(found, indent=2))
