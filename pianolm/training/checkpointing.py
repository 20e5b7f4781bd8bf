"""Callbacks that make training resumable: checkpoints that survive a crash, random states, early stopping."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pianolm.errors import UserError
from pianolm.file_errors import file_error, unwritable
from pianolm.signals import STOP, StoppedBySignalError
from pianolm.training.loggers import RunContext
from pianolm.training.resume import LAST


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, syncs it and renames it, so that a file is complete or absent."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Saves `checkpoint` at `path`; a crash leaves the file that was there before.

        Raises:
            UserError: It cannot be written, for example because the disk is full; the partial file is removed.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except Exception as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            if (problem := file_error(error)) is None:
                raise
            earlier = any((folder / LAST).is_file() for folder in (target.parent, target.parent.parent))
            kept = "the previous one is complete" if earlier else "there is no earlier one"
            raise unwritable(problem, target, kept, "this checkpoint") from error


class StateCheckpoint(Checkpoint):
    """Calls `save_if_due` wherever the state of training is complete.

    That is only between two optimizer steps. Where a validation follows a step, it is after the validation: Lightning
    resumes behind it, so the state must hold the choice of the best weights and the random numbers drawn in it.
    """

    def save_if_due(self, trainer: L.Trainer) -> None:
        """Saves the state if it shall be saved now."""
        raise NotImplementedError

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Where no validation follows."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        val_every = trainer.val_check_batch
        validates = val_every is not None and (trainer.fit_loop.total_batch_idx + 1) % val_every == 0
        if whole_step and not validates:
            self.save_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning calls this after `BestCheckpoint`."""
        if not trainer.sanity_checking:
            self.save_if_due(trainer)


class KeptCheckpoint(StateCheckpoint):
    """Saves the state after one optimizer step and leaves it there.

    Args:
        path: The checkpoint.
        step: Optimizer steps before it; if there are no further ones, nothing is saved.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path, self._step = path, step

    def save_if_due(self, trainer: L.Trainer) -> None:
        """Saves after its step."""
        if trainer.global_step == self._step < trainer.max_steps:
            trainer.save_checkpoint(self._path, weights_only=False)


class LastCheckpoint(StateCheckpoint):
    """Saves the state of training for resuming: every n optimizer steps, after some time, and at a signal to end.

    The state of the last step is saved by `pianolm.training.trainer.fit`.

    Args:
        path: The checkpoint.
        every: Optimizer steps between checkpoints; None for no such checkpoints.
        every_minutes: Time after which the next whole step is saved, whatever `every` is; None for no such checkpoints.
    """

    def __init__(self, path: Path, every: int | None = None, every_minutes: float | None = None) -> None:
        self._path, self._every = path, every
        self._seconds = math.inf if every_minutes is None else every_minutes * 60
        self._stop, self._saved_at = 0, time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on a signal waits for the end of the optimizer step."""
        STOP.deferred = True
        STOP.install_again()  # Lightning has installed handlers of its own
        self._saved_at = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Ends the run at a signal: here the rows of the step that was saved are logged.

        Raises:
            StoppedBySignalError: The state is saved.
        """
        if self._stop:
            raise StoppedBySignalError(self._stop)

    def save_if_due(self, trainer: L.Trainer) -> None:
        """Saves every n steps, after some time and at a signal."""
        overdue = time.monotonic() - self._saved_at >= self._seconds
        self._stop, overdue = _agreed(trainer, STOP.received, overdue)
        due = self._every is not None and trainer.global_step % self._every == 0
        if (due or overdue or self._stop) and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self._path, weights_only=False)
            self._saved_at = time.monotonic()


def _agreed(trainer: L.Trainer, signum: int, overdue: bool) -> tuple[int, bool]:
    """The same answer in all processes: a signal that any of them received, and whether process 0 is overdue."""
    if trainer.world_size == 1:
        return signum, overdue
    answers = torch.tensor(
        [signum, int(overdue and trainer.is_global_zero)], device=trainer.strategy.root_device
    )
    torch.distributed.all_reduce(answers, torch.distributed.ReduceOp.MAX)
    signum, agreed_overdue = answers.tolist()
    return signum, bool(agreed_overdue)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights with the lowest validation metric.

    The checkpoint for resuming may name a best file that a later validation of the killed run replaced. The resumed
    run then starts without a best file and finds the later one again when it repeats that validation.
    """

    def __init__(self, directory: Path, monitor: str) -> None:
        super().__init__(
            directory,
            "{step}",
            monitor=monitor,
            mode="min",
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,  # a resumed run writes the same file again
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best file, unless it no longer exists."""
        if Path(state_dict["best_model_path"]).is_file():
            super().load_state_dict(state_dict)


class StopEarly(EarlyStopping):
    """Stops after n validations without a lower metric; a run that has stopped does not train on when resumed."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(monitor, patience=patience, mode="min")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops at once where the killed run had decided to stop; a run that extends another has no best weights."""
        best = trainer.checkpoint_callback
        if self.wait_count >= self.patience and isinstance(best, BestCheckpoint) and best.best_model_path:
            trainer.should_stop = True


class ConfigInCheckpoint(Callback):
    """Puts the resolved configuration (plain containers only) and the name of the stage into every checkpoint."""

    def __init__(self, cfg: Mapping[str, Any], stage: str) -> None:
        self._cfg, self._stage = json.loads(json.dumps(cfg)), stage

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds both to the checkpoint."""
        checkpoint["pianolm_config"], checkpoint["pianolm_stage"] = self._cfg, self._stage


class RandomStates(Callback):
    """Keeps the random states of all ranks in the checkpoint, so that dropout continues as in an unbroken run.

    Lightning saves a checkpoint on one rank, for which the states of all ranks are gathered.
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
        """Sets the states last: setting up the run draws random numbers, too."""
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


class BatchCounter(Callback):
    """Counts the micro-batches of a resumed run as if it had always divided its batches as it does now.

    With another number of processes an optimizer step may have another number of micro-batches, by whose count
    Lightning knows where a step ends.
    """

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Sets Lightning's counters before it restores them."""
        batches = checkpoint["global_step"] * trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counters in (progress["total"], progress["current"]):
            missing = batches - counters["ready"]  # the last one may not be counted as completed yet
            counters.update({name: count + missing for name, count in counters.items()})


class ValidateAtTheEnd(Callback):
    """Validates after the last step whatever `val_check_interval` is, so that the last weights can be the best."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes the next check fall on the last step; it runs inside `fit`, where checkpoints are chosen."""
        if trainer.global_step == trainer.max_steps:
            trainer.val_check_batch = trainer.max_steps * trainer.accumulate_grad_batches


def last_checkpoint(
    context: RunContext, every_n_steps: int | None = 200, every_minutes: float | None = 5
) -> LastCheckpoint:
    """The callback that saves the state for resuming into the run's work directory.

    Args:
        context: The run's context.
        every_n_steps: Optimizer steps between checkpoints; None for none by steps.
        every_minutes: Minutes after which the next whole step is saved in any case; None for none by time.

    Raises:
        UserError: One of them is not positive.
    """
    for name, value in (("every_n_steps", every_n_steps), ("every_minutes", every_minutes)):
        if value is not None and not value > 0:
            raise UserError(
                f"callbacks.checkpoint.{name}={value} found, expected a positive number or null for none"
            )
    return LastCheckpoint(context.stage.work / LAST, every_n_steps, every_minutes)


def early_stopping(context: RunContext, patience: int = 5) -> StopEarly:
    """The callback that stops training when the run's validation metric no longer falls.

    Args:
        context: The run's context.
        patience: Validations without a lower metric.

    Raises:
        UserError: `patience` is below 1.
    """
    if patience < 1:
        raise UserError(f"callbacks.early_stopping.patience={patience} found, expected at least 1 validation")
    return StopEarly(context.monitor, patience)
