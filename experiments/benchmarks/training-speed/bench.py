"""Time of a training step: the full stage, a bare loop over the same network and batches, and a naive loop.

* `stage`: what `python -m pianolm.run stage=base` runs: Lightning, data loading, logging, checkpoints, callbacks.
* `bare`: the same network, loss, optimizer, precision and allocator settings in a plain loop over prepared batches.
* `naive`: a first attempt in fp32: cross-entropy over all logits, torch's defaults for everything else.

Steps of the stage and of the bare loop alternate in one process, and each pair gives a ratio, so that a slower moment
of the machine affects both. The naive loop runs in a process of its own, because allocator settings cannot be undone.
`profile` measures where the time of the bare loop goes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from report import OPERATIONS, OTHER, headlines, tables
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from experiments.config import composed
from experiments.results import RESULTS, publish, read_rows
from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.model import build_llama
from pianolm.lm.module import LanguageModule
from pianolm.lm.optimizer import OptimizerSettings, make_optimizer
from pianolm.run import execute
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.training.hardware import keep_freed_memory, set_threads

WARM_UP = 3


class Loop:
    """A plain training loop over prepared batches."""

    def __init__(self, tokens: Path, cfg: dict[str, Any], steps: int, naive: bool) -> None:
        if not naive:
            set_threads(cfg, processes=1)
            keep_freed_memory()
        torch.manual_seed(0)
        tokenizer = PianoTokenizer.from_pretrained(tokens / "tokenizer")
        v = tokenizer.vocabulary
        trainer, loader, optimizer = (cfg["base"][group] for group in ("trainer", "loader", "optimizer"))
        self.model = build_llama(cfg["model"], v.size, v.pad, v.bos, v.eos, loader["context"])
        data = LMDataModule(tokens, loader, steps, seed=0)
        data.setup("fit")
        self.batches = list(data.train_dataloader())
        settings = OptimizerSettings.from_config(optimizer, steps)
        self.module = LanguageModule(self.model, settings, v.kind_of, tokenizer.strikes_per_id)
        self.optimizer = make_optimizer(self.model, settings)
        self._clip = trainer["gradient_clip_val"]
        self._bf16 = not naive and trainer["precision"] == "bf16-mixed"
        self._loss: Callable[[dict[str, Any]], Tensor] = self._naive_loss if naive else self._own_loss

    def _naive_loss(self, batch: dict[str, Any]) -> Tensor:
        logits = self.model(input_ids=batch["input_ids"]).logits
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)

    def _own_loss(self, batch: dict[str, Any]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            return self.module.target_losses(batch).nats / batch["n_targets"]

    def step(self, batch: dict[str, Any]) -> None:
        self.optimizer.zero_grad()
        self._loss(batch).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.optimizer.step()

    def speeds(self) -> list[float]:
        """Tokens per second of each step after the warm-up."""
        found = []
        for batch in self.batches:
            begin = time.perf_counter()
            self.step(batch)
            found.append(batch["n_tokens"] / (time.perf_counter() - begin))
        return found[WARM_UP:]

    def shares(self) -> dict[str, float]:
        """Shares of the time of a step by kind of operation."""
        for batch in self.batches[:2]:
            self.step(batch)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for batch in self.batches[2:5]:
                self.step(batch)
        taken: dict[str, float] = defaultdict(float)
        for event in recorded.key_averages():
            kind = next((kind for kind, names in OPERATIONS.items() if event.key.startswith(names)), OTHER)
            taken[kind] += event.self_cpu_time_total
        total = sum(taken.values())
        return {
            kind: round(taken[kind] / total, 3) for kind in sorted(taken, key=taken.__getitem__, reverse=True)
        }


class BareBetween(L.Callback):
    """Takes a step of the bare loop before each step of the stage, and writes the times of all pairs at the end.

    Args:
        tokens: Token store of the bare loop.
        cfg: Configuration of the stage.
        steps: Optimizer steps.
        out: JSON file for `stage` and `bare`, tokens per second, and `ratio`, time of the stage over the bare loop's.
    """

    def __init__(self, tokens: str, cfg: str, steps: int, out: str) -> None:
        self._loop = Loop(Path(tokens), json.loads(cfg), steps, naive=False)
        self._out, self._since = Path(out), 0.0
        self._pairs: list[tuple[float, float]] = []
        self._tokens: list[int] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock of the last step, takes a bare step, and starts the clock of the next step."""
        begin = time.perf_counter()
        self._loop.step(self._loop.batches[batch_idx])
        end = time.perf_counter()
        self._pairs.append((begin - self._since, end - begin))
        self._tokens.append(batch["n_tokens"])
        self._since = end

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """A stage's step is timed at the start of the next one, together with the next bare step."""
        rows = [(n, *pair) for n, pair in zip(self._tokens[:-1], self._pairs[1:], strict=True)][WARM_UP:]
        speeds = {
            "stage": [n / stage for n, stage, _ in rows],
            "bare": [n / bare for n, _, bare in rows],
            "ratio": [stage / bare for _, stage, bare in rows],
        }
        self._out.write_text(json.dumps(speeds), "utf-8")


def paired(tokens: Path, overrides: list[str], steps: int) -> dict[str, list[float]]:
    """Tokens per second of the stage and of the bare loop, and the ratio of their times, pair by pair."""
    chain = ("stage=base", "tokenizer=base", f"base.trainer.max_steps={steps}", "force=true", "resume=never")
    cfg = composed(*chain, *overrides)
    with tempfile.TemporaryDirectory() as run_dir:
        out = Path(run_dir) / "pairs.json"
        entry = {"tokens": str(tokens), "cfg": json.dumps(cfg), "steps": steps, "out": str(out)}
        cfg["callbacks"]["bare_between"] = {"_target_": "__main__.BareBetween", **entry}
        execute(cfg, Path(run_dir))
        return json.loads(out.read_text("utf-8"))  # type: ignore[no-any-return]


def in_process(side: str, tokens: str, steps: int, overrides: list[str]) -> Any:
    """Runs one side in a process of its own; returns what it prints."""
    own = [sys.executable, __file__, "--side", side, "--tokens", tokens, "--steps", str(steps), *overrides]
    done = subprocess.run(own, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, overrides: list[str], scratch: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "pianolm.run", "stage=tokenize", "tokenizer=base", *overrides]
    subprocess.run([*command, f"hydra.run.dir={scratch / 'tokens'}"], check=True, stdout=subprocess.DEVNULL)
    tokens = json.loads((scratch / "tokens" / "metrics.json").read_text())["artifact"]
    found: dict[str, list[float]] = {"stage": [], "bare": [], "naive": [], "ratio": []}
    for _ in range(arguments.repeats):
        for side in ("paired", "naive"):
            for name, values in in_process(side, tokens, arguments.steps, overrides).items():
                found[name] += values
                print(f"{arguments.name}: {name}: {median(values):,.3f}", file=sys.stderr, flush=True)
    first, _, last = quantiles(found["ratio"], n=4)
    return {
        "step_time_over_bare_loop": round(median(found["ratio"]), 3),
        "quartiles_of_the_ratio": [round(first, 3), round(last, 3)],
        "pairs": len(found["ratio"]),
        "tokens_per_second_before": round(median(found["naive"]), 1),
        "tokens_per_second_bare": round(median(found["bare"]), 1),
        "tokens_per_second_after": round(median(found["stage"]), 1),
        "profile": in_process("profile", tokens, 5, overrides),
        "threads": composed(*overrides)["compute"]["threads"] or torch.get_num_threads(),
        "overrides": [o for o in overrides if not o.startswith(("data.root", "paths."))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("paired", "naive", "profile"))
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--steps", type=int, default=51)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", help="name of this run in results.jsonl")
    parser.add_argument("--out", type=Path, help="folder of results.jsonl, metrics.json and README.md")
    arguments, overrides = parser.parse_known_args()
    if arguments.side == "paired":
        print(json.dumps(paired(arguments.tokens, overrides, arguments.steps)))
        return
    if arguments.side:
        loop = Loop(arguments.tokens, composed(*overrides), arguments.steps, arguments.side == "naive")
        print(json.dumps(loop.shares() if arguments.side == "profile" else {"naive": loop.speeds()}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments, overrides, Path(scratch))
    rows = [row for row in read_rows(arguments.out / RESULTS) if row["run"] != arguments.name]
    rows.append({"run": arguments.name, **result})
    publish(arguments.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
