"""The base class of every trained module: it logs learning rate, gradient norm, throughput and memory.

Lightning's `ThroughputMonitor` does not serve here. It synchronizes with the GPU after every micro-batch, while these
figures are computed only in the steps whose row is logged. It counts the items of one micro-batch on one process, PAD
included, while `train/tokens_per_second` counts the tokens of a global batch. And it has no rate of the whole run,
validation excluded, which metrics.json reports.
"""

from __future__ import annotations

import resource
import sys
import time

import lightning as L
import torch
from torch import Tensor, nn

from pianolm.training.sharding import whole


class Stopwatch:
    """Seconds between `start` and `stop`, summed over all such intervals.

    Attributes:
        seconds: The sum so far, up to the last `stop` or `lap`.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Starts an interval."""
        self._started = time.perf_counter()

    def lap(self) -> float:
        """Adds the current interval so far and returns the sum; the stopwatch keeps running if it was."""
        if self._started is not None:
            now = time.perf_counter()
            self.seconds += now - self._started
            self._started = now
        return self.seconds

    def stop(self) -> None:
        """Ends the current interval, if there is one."""
        self.lap()
        self._started = None


class Throughput:
    """Items per second over optimizer steps, without the first step, which warms up, and without validation."""

    def __init__(self) -> None:
        self._items = 0
        self._stopwatch = Stopwatch()
        self._warm = False
        self._last_items, self._last_seconds = 0, 0.0

    def step(self, items: int) -> None:
        """Counts the items of an optimizer step that is done."""
        if self._warm:
            self._items += items
        self._warm = True
        self._stopwatch.lap()
        self._stopwatch.start()

    def pause(self) -> None:
        """Stops the time, for a validation."""
        self._stopwatch.stop()

    def resume(self) -> None:
        """Continues after a pause."""
        if self._warm:
            self._stopwatch.start()

    @property
    def per_second(self) -> float:
        """Items per second of the whole run, 0 before the second step."""
        return self._items / self._stopwatch.seconds if self._items else 0.0

    def since_last_call(self) -> float:
        """Items per second since this was called last, 0 if no step was counted since."""
        items = self._items - self._last_items
        seconds = self._stopwatch.seconds - self._last_seconds
        self._last_items, self._last_seconds = self._items, self._stopwatch.seconds
        return items / seconds if items else 0.0


class MonitoredModule(L.LightningModule):
    """A LightningModule that logs learning rate, gradient norm, throughput and memory.

    A subclass calls `log_throughput` once per optimizer step. Figures are computed only in steps whose row is logged,
    because on a GPU the program has to wait for each of them.

    Args:
        items: What the throughput counts: tokens, cells.

    Attributes:
        monitor: Validation metric that chooses the best weights; the lowest value is best.
        throughput: Items per second of this run, over all processes.
        items: What it counts.
    """

    monitor: str = "val/loss"

    def __init__(self, items: str) -> None:
        super().__init__()
        self.throughput = Throughput()
        self.items = items

    @property
    def is_logging_step(self) -> bool:
        """Whether the loggers get a row of this optimizer step."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its connector
        return (self.trainer.global_step + 1) % every == 0

    def log_throughput(self, items: int) -> None:
        """Counts the items of an optimizer step, and logs the throughput since the last row."""
        self.throughput.step(items)
        if self.is_logging_step and (per_second := self.throughput.since_last_call()):
            self.log(f"train/{self.items}_per_second", per_second)

    def on_validation_start(self) -> None:
        """Validation does not count in the throughput."""
        self.throughput.pause()

    def on_validation_end(self) -> None:
        """Continues to measure the throughput."""
        self.throughput.resume()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradient as the trainer asks for it, and logs its norm from before."""
        norm: Tensor | None = None
        if gradient_clip_val is not None and gradient_clip_algorithm != "value":
            norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        elif self.is_logging_step:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        if gradient_clip_val is not None and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        if self.is_logging_step:
            norm = whole(norm)  # under FSDP2 each process has the norm of its parts
            assert norm is not None, "computed above in a logging step"
            self.log_dict(
                {
                    "gradient_norm": norm,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "memory_mb": peak_memory_mb(self.device),
                }
            )


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of tensors on a GPU, of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
