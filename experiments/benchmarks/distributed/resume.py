"""A run of two processes is killed at a random step and continued with one, two and four."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import torch
from commands import PIANOLM, arguments, finish, started, torchrun
from report import RESUME, headlines, tables

from experiments.config import composed
from experiments.results import RESULTS, publish, read_rows
from pianolm.run import execute

STEPS, KILLED_IN = 120, (8, 19)
SETTINGS = (
    "stage=base",
    "data.pieces=8",
    "tokenizer=base",
    "model.width=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=2",
    "model.ffn=48",
    "loader.context=64",
    "loader.batch_tokens=256",
    "loader.micro_batch_tokens=64",
    "loader.val_tokens=2048",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=60",
    "optimizer.warmup_steps=10",
    "callbacks.checkpoint.every_n_steps=1",
    "callbacks.progress.every_n_steps=1",
    "logger=csv",
    "compute.threads=1",
    "paths.artifacts=artifacts",
    "paths.work=work",
    "paths.outputs=outputs",
)
"""Micro-batches of one row: with one, two and four processes a step has four, two and one of them."""
TWO = ["hardware=ddp_cpu"]
_STEP = re.compile(r"^  step (\d+)/")


def kill_at(step: int, root: Path) -> None:
    """Trains with two processes and kills both once a step is done."""
    run = started([*PIANOLM, *SETTINGS, *TWO], root)
    assert run.stdout is not None, "a pipe"
    for line in run.stdout:
        if (found := _STEP.match(line)) and int(found[1]) >= step:
            os.killpg(run.pid, signal.SIGKILL)
            break
    assert run.wait() == -signal.SIGKILL, "killed before its end"


def measure(name: str, root: Path, commands: list[list[str]]) -> dict[str, Any]:
    """Runs a command to the end and reads the validation of what it published, which is the last one."""
    finish([started([*command, *SETTINGS], root) for command in commands])
    return result(name, root)


def result(name: str, root: Path) -> dict[str, Any]:
    """The row of a finished run."""
    (path,) = root.glob("outputs/base/*/metrics.json")
    metrics = json.loads(path.read_text())
    (artifact,) = (path for path in (root / "artifacts/base").iterdir() if not path.name.startswith("."))
    files = sorted(path.relative_to(artifact).as_posix() for path in artifact.rglob("*") if path.is_file())
    return {
        "kind": RESUME,
        "run": name,
        "val_loss": metrics["val/loss"],
        "resumed_from_step": metrics["resumed_from_step"],
        "steps": STEPS,
        "files": len(files),
    }


def main() -> None:
    given = arguments(__doc__ or "")
    step = random.Random(given.seed).randint(*KILLED_IN)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        places = [f"paths.{name}={root}/upstream/{name}" for name in ("artifacts", "work", "outputs")]
        upstream = [setting for setting in SETTINGS if not setting.startswith(("stage", "paths."))]
        execute(composed(*upstream, "stage=tokenize", *places), root / "upstream" / "run")
        for name in ("whole", "killed"):
            shutil.copytree(root / "upstream" / "artifacts", root / name / "artifacts")
        kill_at(step, root / "killed")
        (last,) = (root / "killed" / "work" / "base").glob("*/last.ckpt")
        saved = int(torch.load(last, weights_only=True)["global_step"])
        ways = {
            "1 process": [[*PIANOLM, "hardware=cpu"]],
            "2 processes, FSDP2": [[*PIANOLM, "hardware=fsdp_cpu"]],
            "4 processes on two machines, DDP": [
                [*command, "hardware=torchrun", "hardware.accelerator=cpu", "hardware.precision=32-true"]
                for command in torchrun(2, 2)
            ],
        }
        rows = [measure("2 processes, DDP, not killed", root / "whole", [[*PIANOLM, *TWO]])]
        for number, (name, commands) in enumerate(ways.items()):
            shutil.copytree(root / "killed", place := root / str(number))
            rows.append(measure(name, place, commands))
            assert rows[-1]["resumed_from_step"] == saved, "continued where it was killed"
    others = [row for row in read_rows(given.out / RESULTS) if row["kind"] != RESUME]
    rows = [{**row, "seed": given.seed} for row in rows] + others
    publish(given.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
