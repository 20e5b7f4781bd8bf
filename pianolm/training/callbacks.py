"""Callbacks of every trained stage: checkpoints that survive a crash, random states, lines of progress."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from pianolm.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, syncs it and renames it: what is there is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Saves `checkpoint` at `path`; a crash leaves the file that was there before.

        Raises:
            UserError: It cannot be written, because the disk is full for example; what was begun is removed.
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
            if (cause := _os_error(error)) is None:
                raise
            raise UserError(
                f"{target}: this checkpoint could not be written ({cause.strerror}); the one before it is whole: "
                "free some space and give the same command again, it goes on from there"
            ) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The system's error behind an exception: torch's zip writer raises one of its own over it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


class LastCheckpoint(Checkpoint):
    """Saves the state of training for resuming, every so many optimizer steps but for the last one.

    A state is complete only between two optimizer steps, and where a validation follows, after it: Lightning goes on
    behind that validation, so that the choice of the best weights and the random numbers drawn in it have to be in the
    state.
    """

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where a checkpoint is due and no validation follows."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        val_every = trainer.val_check_batch
        validates = val_every is not None and (trainer.fit_loop.total_batch_idx + 1) % val_every == 0
        if whole_step and not validates:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves where a checkpoint is due; Lightning calls this after the callback that keeps the best weights."""
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        if trainer.global_step % self._every == 0 and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self._path, weights_only=False)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights with the lowest value of a metric of the validation.

    A resumed run may know of a file that a better one replaced after the last checkpoint for resuming; it then chooses
    anew from the next validation on, and comes to that better one again.
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
        """Takes back what was best, unless its file is gone."""
        if Path(state_dict["best_model_path"]).is_file():
            super().load_state_dict(state_dict)


class StopEarly(EarlyStopping):
    """Stops when a metric has not fallen for so many validations, and once stopped does not train on when resumed."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(monitor, patience=patience, mode="min")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops at once where that was decided before; a run that extends another has no best weights yet."""
        best = trainer.checkpoint_callback
        if self.wait_count >= self.patience and isinstance(best, BestCheckpoint) and best.best_model_path:
            trainer.should_stop = True


class ConfigInCheckpoint(Callback):
    """Puts the resolved configuration, plain containers only, and the stage into every checkpoint."""

    def __init__(self, cfg: Mapping[str, Any], stage: str) -> None:
        self._cfg, self._stage = json.loads(json.dumps(cfg)), stage

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds both."""
        checkpoint["pianolm_config"], checkpoint["pianolm_stage"] = self._cfg, self._stage


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
    """One line every so many steps: step, loss, speed, time left; and one at each validation.

    Args:
        every: Steps between lines.
        monitor: Metric that is shown of a validation.
    """

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
        """Shows a step that is complete."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step > self._first_step:
            self.show_step(trainer)

    def show_step(self, trainer: L.Trainer) -> None:
        """Prints a line where one is due."""
        if trainer.global_step % self._every == 0:
            pace = (trainer.global_step - self._first_step) / max(time.perf_counter() - self._start, 1e-9)
            loss, speed = loss_and_speed(trainer)
            words = [
                loss and f"train/{loss}",
                f"{pace:.1f} steps/s",
                speed,
                f"{self.time_left(trainer)} left",
            ]
            self.say(trainer, "  ".join(filter(None, words)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the monitored metric, and bits per note where they are known."""
        if trainer.sanity_checking:
            return
        names = dict.fromkeys([self._monitor, "val/bits_per_note"])
        found = {name: trainer.callback_metrics.get(name) for name in names}
        words = [f"{name} {float(value):.4f}" for name, value in found.items() if value is not None]
        if words:
            self.say(trainer, "  ".join(words))

    def say(self, trainer: L.Trainer, text: str) -> None:
        """Prints a line on the first process."""
        rank_zero_info(f"  step {trainer.global_step}/{trainer.max_steps}  {text}")

    def time_left(self, trainer: L.Trainer) -> str:
        """Hours, minutes and seconds to the last step, at the speed so far with its validations."""
        step = trainer.global_step
        seconds = (time.perf_counter() - self._start) / max(step - self._first_step, 1)
        return str(timedelta(seconds=round(seconds * (trainer.max_steps - step))))


class StepBar(StepLines):
    """A bar on the terminal: step, loss, speed, time left; validations are lines above it.

    Args:
        name: Before the bar.
        every: Steps between rows of the loggers.
        monitor: Metric that is shown of a validation.
        console: To draw on, None for the terminal.
    """

    def __init__(self, name: str, every: int, monitor: str, console: Console | None = None) -> None:
        super().__init__(every, monitor)
        self._name, self._console = name, console
        self._bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock and shows the bar."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TextColumn("{task.fields[left]}", justify="right"),
                console=self._console,
                expand=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task(
                self._name, total=trainer.max_steps, completed=trainer.global_step, figures="", left=""
            )
            self._bar.start()

    def show_step(self, trainer: L.Trainer) -> None:
        """Moves the bar; its figures change with the rows of the loggers, so that no step waits for them."""
        if self._bar is None:
            return
        self._bar.update(self._task, completed=trainer.global_step, left=f"{self.time_left(trainer)} left")
        if trainer.global_step % self._every == 0:
            self._bar.update(self._task, figures="  ".join(filter(None, loss_and_speed(trainer))))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says why the bar stands still."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._name} validates")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the metric above the bar."""
        super().on_validation_end(trainer, pl_module)
        if self._bar is not None:
            self._bar.update(self._task, description=self._name)

    def say(self, trainer: L.Trainer, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            line = f"  step {trainer.global_step}/{trainer.max_steps}  {text}"
            self._bar.console.print(line, markup=False, highlight=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the bar where it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Likewise, so that the error stands below it."""
        self.on_train_end(trainer, pl_module)


def step_display(name: str, settings: Mapping[str, Any], monitor: str, plain: bool) -> StepLines:
    """A bar where a person watches, else lines: in pipes and files, and where `plain` asks for them.

    Args:
        name: Of the stage.
        settings: `log_every` and `lines_every`.
        monitor: Metric that is shown of a validation.
        plain: Lines also on a terminal.
    """
    if sys.stdout.isatty() and not Console().is_dumb_terminal and not plain:
        return StepBar(name, int(settings["log_every"]), monitor)
    return StepLines(int(settings["lines_every"]), monitor)


def loss_and_speed(trainer: L.Trainer) -> tuple[str, str]:
    """The training loss and the items a second of the last row that was logged, in words; empty where unknown."""
    found = trainer.callback_metrics
    loss = f"loss {float(found['train/loss']):.4f}" if "train/loss" in found else ""
    speeds = [name for name in found if name.startswith("train/") and name.endswith("_per_second")]
    words = [f"{float(found[n]):,.0f} {n[len('train/') : -len('_per_second')]}/s" for n in speeds]
    return loss, "  ".join(words)


class ValidateAtTheEnd(Callback):
    """Validates after the last step whatever `val_check_interval` is, so that the last weights can be the best."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes the next check fall on the last step; it runs inside `fit`, where checkpoints are chosen."""
        if trainer.global_step == trainer.max_steps:
            trainer.val_check_batch = trainer.max_steps * trainer.accumulate_grad_batches
