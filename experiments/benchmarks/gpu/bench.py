"""Adds the row of a finished run: its throughput and the share of the GPU's peak that it amounts to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from report import headlines, tables

from experiments.results import RESULTS, publish, read_metrics, read_rows


def flop_per_token(parameters: int, layers: int, width: int, context: int) -> float:
    """Of forward and backward pass: six a weight, and causal attention over half the context (PaLM, appendix B)."""
    return 6 * parameters + 6 * layers * width * context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--peak", type=float, required=True, help="TFLOP/s of the GPU in bf16")
    parser.add_argument("--dry", action="store_true", help="the run only tries the script")
    parser.add_argument("--out", type=Path, required=True, help="folder of results.jsonl")
    given = parser.parse_args()
    cfg: Any = OmegaConf.load(given.run / ".hydra" / "config.yaml")
    metrics = read_metrics(given.run)
    speed, model, context = metrics["train/tokens_per_second"], cfg.model, int(cfg.loader.context)
    flop = flop_per_token(metrics["parameters"], int(model.layers), int(model.width), context)
    row = {
        "run": "compiled" if model.compile else "eager",
        "dry": given.dry,
        "device": "CPU" if given.dry else torch.cuda.get_device_name(),
        "parameters": metrics["parameters"],
        "steps": int(cfg.trainer.max_steps),
        "batch_tokens": int(cfg.loader.batch_tokens),
        "context": context,
        "tokens_per_second": speed,
        "share_of_peak": None if given.dry else round(speed * flop / given.peak / 1e12, 4),
    }
    kept = [
        old for old in read_rows(given.out / RESULTS) if old["dry"] == given.dry and old["run"] != row["run"]
    ]
    rows = sorted([*kept, row], key=lambda one: one["run"], reverse=True)
    publish(given.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
