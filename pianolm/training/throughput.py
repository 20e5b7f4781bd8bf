"""What every training logs beside its losses: learning rate, norm of the gradient, speed and memory."""

from __future__ import annotations

import resource
import sys
import time

import lightning as L
import torch
from torch import nn


class WatchedModule(L.LightningModule):
    """A module that logs how its training goes.

    Figures are made only in the steps whose row is written: on a GPU each of them is waited for.

    Args:
        items: What the speed counts: tokens, cells.

    Attributes:
        pace: Speed of this process's run.
    """

    def __init__(self, items: str) -> None:
        super().__init__()
        self.pace = Pace()
        self._items = items

    @property
    def writes_row(self) -> bool:
        """Whether the loggers get a row of this optimizer step."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its connector
        return (self.trainer.global_step + 1) % every == 0

    def log_pace(self, count: int) -> None:
        """Counts an optimizer step of so many items and logs the speed since the last row."""
        self.pace.step(count)
        if self.writes_row and (speed := self.pace.recent()):
            self.log(f"train/{self._items}_per_second", speed)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of the gradient where the trainer asks for it, and logs the norm from before."""
        if gradient_clip_val is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        elif self.writes_row:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        if self.writes_row:
            self.log_dict(
                {
                    "gradient_norm": norm,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "memory_mb": peak_memory_mb(self.device),
                }
            )


def peak_memory_mb(device: torch.device) -> float:
    """The most memory in MiB that tensors held on a GPU, or this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Pace:
    """Tokens a second over optimizer steps; the first step, which warms up, and pauses do not count."""

    def __init__(self) -> None:
        self._tokens = 0
        self._seconds = 0.0
        self._mark: float | None = None
        self._told = (0, 0.0)

    def step(self, tokens: int) -> None:
        """A step with so many tokens is done."""
        if self._mark is not None:
            self._tokens += tokens
        self._count_time()
        self._mark = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock, for a validation."""
        self._count_time()

    def resume(self) -> None:
        """Lets it run again."""
        self._mark = time.perf_counter()

    def _count_time(self) -> None:
        if self._mark is not None:
            self._seconds += time.perf_counter() - self._mark

    @property
    def per_second(self) -> float:
        """Tokens a second, 0 before the second step."""
        return self._tokens / self._seconds if self._tokens else 0.0

    def recent(self) -> float:
        """Tokens a second since this was asked last, 0 where no step was counted since."""
        tokens, seconds = self._tokens - self._told[0], self._seconds - self._told[1]
        self._told = (self._tokens, self._seconds)
        return tokens / seconds if tokens else 0.0
