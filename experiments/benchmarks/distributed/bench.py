"""Time of an optimizer step: one process with two threads, DDP and FSDP2 with two processes, equal global batch."""

from __future__ import annotations

import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from commands import PIANOLM, arguments, finish, started
from report import STEPS, headlines, tables
from step_times import DIRECTORY

from experiments.config import composed
from experiments.results import RESULTS, publish, read_rows
from pianolm.run import execute

WARM_UP, ROUNDS = 2, 1
SETTINGS = (
    "data.pieces=8",
    "tokenizer=base",
    "model=tiny",
    "loader.val_tokens=512",
    "trainer.val_check_interval=100000",
    "logger=csv",
    "hardware.precision=32-true",
)
CASES = {
    "1 process of 2 threads": ("hardware=cpu", "compute.threads=2"),
    "2 processes, DDP": ("hardware=ddp_cpu", "compute.threads=1"),
    "2 processes, FSDP2": ("hardware=fsdp_cpu", "compute.threads=1"),
}
TARGET = "callbacks.step_times._target_=experiments.benchmarks.distributed.step_times.StepTimes"


def durations(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of each step after the first ones, and its processor seconds in all processes."""
    ranks = [json.loads(path.read_text())[WARM_UP:] for path in sorted(folder.glob("*.json"))]
    wall = [after[0] - before[0] for before, after in pairwise(ranks[0])]
    own = [[after[1] - before[1] for before, after in pairwise(times)] for times in ranks]
    return wall, [sum(step) for step in zip(*own, strict=True)]


def main() -> None:
    given = arguments(__doc__ or "")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        places = [f"paths.{name}={root}/{name}" for name in ("artifacts", "work", "outputs")]
        execute(composed(*SETTINGS, "stage=tokenize", *places), root / "run")
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in CASES}
        for turn in range(ROUNDS):  # alternating, as other programs run beside it
            for number, (name, case) in enumerate(CASES.items()):
                (folder := root / f"{turn}-{number}").mkdir()
                steps = [f"trainer.max_steps={given.steps + WARM_UP + 1 + turn}", TARGET]  # each is trained
                command = [*PIANOLM, "stage=base", *SETTINGS, *case, *steps, *places, "force=true"]
                finish([started(command, root, **{DIRECTORY: str(folder)})])
                for mine, more in zip(found[name], durations(folder), strict=True):
                    mine.extend(more)
        for name, (wall, processor) in found.items():
            times = {"wall_sec": round(median(wall), 4), "processor_sec": round(median(processor), 4)}
            rows.append({"kind": STEPS, "run": name, **times, "steps": len(wall)})
    busy = round(os.getloadavg()[1], 1)
    others = [row for row in read_rows(given.out / RESULTS) if row["kind"] != STEPS]
    rows = others + [{**row, "load_average": busy, "cores": os.cpu_count()} for row in rows]
    publish(given.out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    main()
