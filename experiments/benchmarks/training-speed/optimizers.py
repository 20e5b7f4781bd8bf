"""What a step of each optimizer costs beside a forward and backward pass of the model in the box.

    python optimizers.py OUT

Random weights and 4 × 1,024 random tokens with the loss over all ids, one thread, fp32; medians of steps in turn.
Writes optimizers.jsonl and a table of OUT/README.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.optim import Muon, Optimizer

from experiments.config import composed
from experiments.results import README, Row, replace_section, table, write_rows
from pianolm.lm.model import build_llama
from pianolm.lm.optimizer import OptimizerSettings, make_optimizer
from pianolm.lm.optimizers import muon

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
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


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
    bf16 = any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))
    rows: list[Row] = [
        {
            "optimizer": name,
            "forward_backward_sec": round(median(passes), 3),
            "optimizer_sec": round(median(values), 3),
            "processor_has_bf16": bf16,
        }
        for name, values in steps.items()
    ]
    write_rows(out / "optimizers.jsonl", rows)
    lines = [
        [
            row["optimizer"],
            f"{row['optimizer_sec']:.3f} s",
            f"{row['forward_backward_sec']:.2f} s",
            f"{100 * row['optimizer_sec'] / (row['optimizer_sec'] + row['forward_backward_sec']):.0f}",
        ]
        for row in rows
    ]
    head = ["", "step of the optimizer", "forward and backward", "share of the optimizer, %"]
    replace_section(out / README, "optimizers", table(head, lines))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
