"""What a step of each optimizer costs beside a forward and backward pass of the bundled model.

    python optimizers.py OUT

Random weights and 4 × 1,024 random tokens with the loss over all ids, one thread, fp32; medians of steps in turn.
Processor time, so that other programs on the machine matter less. Replaces its rows in OUT/results.jsonl.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from report import headlines, tables
from torch.optim import Muon, Optimizer

from experiments.config import composed
from experiments.results import RESULTS, Row, publish, read_rows
from pianolm.lm.model import build_llama
from pianolm.lm.optimizer import OptimizerSettings, make_optimizer
from pianolm.lm.optimizers import muon
from pianolm.training.hardware import bf16_instructions

ROWS, CONTEXT, STEPS = 4, 1024, 5
VOCABULARY = 4789


def muon_of_torch(model: torch.nn.Module, settings: OptimizerSettings) -> Optimizer:
    """`optimizer=muon` with the steps of `torch.optim.Muon`."""
    ours, muon.BatchedMuon = muon.BatchedMuon, Muon  # type: ignore[misc, assignment]  # for the comparison only
    try:
        return make_optimizer(model, settings)
    finally:
        muon.BatchedMuon = ours  # type: ignore[misc]


def seconds_of(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = composed("stage=finetune", "experiment=box", "model.embedding=table")
    settings = {
        name: OptimizerSettings.from_config(composed("stage=base", f"optimizer={name}")["optimizer"], STEPS)
        for name in ("adamw", "muon")
    }
    model = build_llama(cfg["model"], VOCABULARY, 4788, 4786, 4787, CONTEXT)
    ids_BT = torch.randint(VOCABULARY, (ROWS, CONTEXT))
    optimizers = {
        "AdamW": make_optimizer(model, settings["adamw"]),
        "Muon and AdamW": make_optimizer(model, settings["muon"]),
        "Muon and AdamW, with torch.optim.Muon": muon_of_torch(model, settings["muon"]),
    }
    passes: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(STEPS):
        model.zero_grad()
        passes.append(seconds_of(lambda: model(input_ids=ids_BT, labels=ids_BT).loss.backward()))
        for name, optimizer in optimizers.items():
            steps[name].append(seconds_of(optimizer.step))
    found: list[Row] = [
        {
            "run": name,
            "forward_backward_sec": round(median(passes), 3),
            "optimizer_sec": round(median(values), 3),
            "bf16_instructions": bf16_instructions(),
        }
        for name, values in steps.items()
    ]
    rows = [row for row in read_rows(out / RESULTS) if row["run"] not in steps] + found
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
