"""Callbacks of every trained stage: checkpoints that survive a crash, random states, lines of progress."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, syncs it and renames it: what is there is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Saves `checkpoint` at `path`; a crash leaves the file that was there before."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)


class ConfigInCheckpoint(Callback):
    """Puts the resolved configuration, plain containers only, into every checkpoint."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        self._cfg = json.loads(json.dumps(cfg))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the configuration."""
        checkpoint["pianolm_config"] = self._cfg


class RandomStates(Callback):
    """Keeps the random states in the checkpoint, so that dropout goes on as in an unbroken run.

    Lightning saves a checkpoint on one rank; the states of all ranks are gathered for it.
    """

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the states of every rank."""
        states: list[Any] = [_random_state()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, _random_state())
        checkpoint["random_states"] = states

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores this rank's states; with another number of ranks the seeds stay as they are."""
        states = checkpoint.get("random_states", [])
        if len(states) == trainer.world_size:
            self._wanted = states[trainer.global_rank]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sets them last, after whatever drew random numbers while the run was set up."""
        if (wanted := getattr(self, "_wanted", None)) is not None:
            _set_random_state(wanted)


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  # libraries draw from it
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class StepLines(Callback):
    """One line every so many steps: step, loss, speed in steps a second, time left; and one at each validation."""

    def __init__(self, every: int, monitor: str) -> None:
        self._every = every
        self._monitor = monitor
        self._first_step, self._start = 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._first_step, self._start = trainer.global_step, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints a line where one is due."""
        step = trainer.global_step
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not whole_step or step % self._every or step == self._first_step:
            return
        pace = (step - self._first_step) / max(time.perf_counter() - self._start, 1e-9)
        left = (trainer.max_steps - step) / pace
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"  train/loss {float(loss):.4f}"
        rank_zero_info(f"  step {step}/{trainer.max_steps}{shown}  {pace:.1f} steps/s  {left:.0f} s left")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the monitored metric."""
        value = trainer.callback_metrics.get(self._monitor)
        if value is not None and not trainer.sanity_checking:
            rank_zero_info(
                f"  step {trainer.global_step}/{trainer.max_steps}  {self._monitor} {float(value):.4f}"
            )


class ValidateAtTheEnd(Callback):
    """Validates after the last step whatever `val_check_interval` is, so that the last weights can be the best."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes the next check fall on the last step; it runs inside `fit`, where checkpoints are chosen."""
        if trainer.global_step == trainer.max_steps:
            trainer.val_check_batch = trainer.max_steps * trainer.accumulate_grad_batches
