"""Progress of a training on the terminal: a bar where a person watches, else lines.

Lightning's own bars count batches of an epoch; these runs have one endless epoch and count optimizer steps.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pianolm.training.loggers import RunContext


class ProgressLines(Callback):
    """A line every n steps with step, loss, speed and time left, and a line for each validation.

    Args:
        every_n_steps: Steps between lines.
        monitor: Validation metric to show.
    """

    def __init__(self, every_n_steps: int, monitor: str) -> None:
        self._every = every_n_steps
        self._monitor = monitor
        self._first_step, self._start = 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._first_step, self._start = trainer.global_step, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Shows an optimizer step after its last micro-batch."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step > self._first_step:
            self.show_step(trainer)

    def show_step(self, trainer: L.Trainer) -> None:
        """Prints a line every n steps."""
        if trainer.global_step % self._every == 0:
            speed = (trainer.global_step - self._first_step) / max(time.perf_counter() - self._start, 1e-9)
            loss, throughput = loss_and_speed(trainer)
            words = [
                loss and f"train/{loss}",
                f"{speed:.1f} steps/s",
                throughput,
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


class ProgressBar(ProgressLines):
    """A bar on the terminal with step, loss, speed and time left; validations are lines above it.

    Args:
        name: Text before the bar.
        monitor: Validation metric to show.
        console: Where the bar is drawn, None for the terminal.
    """

    def __init__(self, name: str, monitor: str, console: Console | None = None) -> None:
        super().__init__(1, monitor)
        self._name, self._console = name, console
        self._bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock and shows the bar."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self._bar = Progress(
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
        """Moves the bar; its figures change only with the loggers' rows, which bring them to the CPU anyway."""
        if self._bar is None:
            return
        self._bar.update(self._task, completed=trainer.global_step, left=f"{self.time_left(trainer)} left")
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's connector
        if trainer.global_step % every == 0:
            self._bar.update(self._task, figures="  ".join(filter(None, loss_and_speed(trainer))))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows that the bar waits for a validation."""
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
        """Stops drawing the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stops drawing the bar, so that the error message is printed below it."""
        self.on_train_end(trainer, pl_module)


def progress(context: RunContext, every_n_steps: int = 50) -> ProgressLines:
    """A bar on a terminal; lines in pipes and files, and in the jobs of a sweep, which share the terminal.

    Args:
        context: The run's context.
        every_n_steps: Steps between lines.
    """
    name, monitor = context.stage.name, context.monitor
    if sys.stdout.isatty() and not Console().is_dumb_terminal and context.stage.sweep is None:
        return ProgressBar(name, monitor)
    return ProgressLines(every_n_steps, monitor)


def loss_and_speed(trainer: L.Trainer) -> tuple[str, str]:
    """Text with the training loss, and with the throughput, of the last logged row; empty where unknown."""
    found = trainer.callback_metrics
    loss = f"loss {float(found['train/loss']):.4f}" if "train/loss" in found else ""
    speeds = [name for name in found if name.startswith("train/") and name.endswith("_per_second")]
    words = [f"{float(found[n]):,.0f} {n[len('train/') : -len('_per_second')]}/s" for n in speeds]
    return loss, "  ".join(words)
