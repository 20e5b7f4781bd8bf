"""A callback that notes when each optimizer step of a process ended, by the clock and in its processor time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

DIRECTORY = "STEP_TIMES"
"""Environment variable: where each process writes `<rank>.json`."""


class StepTimes(Callback):
    """Writes a list of [seconds, processor seconds], one entry for each step."""

    def __init__(self) -> None:
        self._times: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Without gradient accumulation every batch is a step."""
        self._times.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file."""
        path = Path(os.environ[DIRECTORY]) / f"{trainer.global_rank}.json"
        path.write_text(json.dumps(self._times))
