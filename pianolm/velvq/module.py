"""Training of velocity codecs, the same for every form.

`pianolm.velvq.network_segment` and `pianolm.velvq.network_frame` bring settings and networks.

Shapes: B cells of a batch, S segments, K codes.
"""

from __future__ import annotations

import importlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pianolm.errors import UserError
from pianolm.music.cells import Cells
from pianolm.tokenizer.velocity import FORMS, VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors
from pianolm.training.throughput import MonitoredModule

TARGET_MAE = 0.54
"""What the published reference of this design reaches; the time to get there is a metric."""

Share = Callable[[Tensor | int], Tensor]
"""Factor that turns a sum over so many items of this process into its part of the mean over all processes'."""


class VelVQNetwork(nn.Module, ABC):
    """What a form of the codec brings to be trained."""

    @abstractmethod
    def training_losses(self, batch: Mapping[str, Tensor], share: Share) -> dict[str, Tensor]:
        """`loss` of a batch, and what it is made of, to be logged."""

    @abstractmethod
    def codec(self) -> VelocityCodec:
        """The same codec in NumPy."""


@dataclass(frozen=True)
class VelVQSettings(ABC):
    """The part of `velvq.*` that determines networks and training, as far as all forms share it.

    Attributes:
        codebook_size: K.
        learning_rate: Highest, after the warm-up.
        warmup_steps: Steps to get there; a cosine brings it down to 0 at `max_steps`.
        weight_decay: Of AdamW.
        decay: Of the codes' moving averages, per step.
        dead_code_threshold: A code used by fewer cells a batch than this (moving average) restarts at a cell
            of the batch.
        max_steps: Optimizer steps.
    """

    codebook_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    decay: float
    dead_code_threshold: float
    max_steps: int

    def __post_init__(self) -> None:
        self.check_positive("codebook_size", "max_steps")
        if not 0 <= self.decay < 1:
            raise UserError(f"velvq.decay={self.decay} found, expected a number in [0, 1)")

    def check_positive(self, *names: str) -> None:
        """Raises UserError where a number is below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"velvq.{name}={getattr(self, name)} found, expected at least 1")

    @classmethod
    def from_config(cls, velvq: Mapping[str, Any]) -> Self:
        """Picks its fields out of the `velvq` group."""
        return cls(**{field.name: velvq[field.name] for field in fields(cls)})

    @abstractmethod
    def network(self, distributed: bool) -> VelVQNetwork:
        """The networks; `distributed` says whether codes are averaged over processes."""


def settings_of(velvq: Mapping[str, Any]) -> VelVQSettings:
    """Settings of the form that `velvq.form` names.

    Raises:
        UserError: There is no such form, or a setting is out of range.
    """
    form = velvq["form"]
    if form not in FORMS:
        raise UserError(f"velvq.form={form!r} found, expected one of {', '.join(FORMS)}")
    module = importlib.import_module(f"pianolm.velvq.network_{form}")
    settings: type[VelVQSettings] = getattr(module, f"{form.capitalize()}Settings")
    return settings.from_config(velvq)


class VelVQModule(MonitoredModule):
    """Trains the networks of any form.

    A training batch is what the networks' `training_losses` takes; a validation batch is a dict of `sustain` and
    `onset` [B] int64 and `segment_velocity` [S] uint8.
    """

    def __init__(self, settings: VelVQSettings) -> None:
        super().__init__("cells")
        self.settings = settings
        self.model: VelVQNetwork | None = None
        self._codec: VelocityCodec | None = None
        self.train_seconds = 0.0
        self.seconds_to_target: float | None = None
        self._errors = VelocityErrors.empty(settings.codebook_size)
        self._clock: float | None = None

    def configure_model(self) -> None:
        """Builds the networks, here because the quantizer has to know whether there is a process group."""
        if self.model is None:
            group = torch.distributed.is_available() and torch.distributed.is_initialized()
            self.model = self.settings.network(group and torch.distributed.get_world_size() > 1)

    @property
    def network(self) -> VelVQNetwork:
        """The networks, built if they are not yet."""
        self.configure_model()
        assert self.model is not None, "configure_model builds it"
        return self.model

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a global batch."""
        losses = self.network.training_losses(batch, self._share)
        cells = sum(len(part) for name, part in batch.items() if name.startswith("velocity"))
        self.log_throughput(cells * self.trainer.world_size)
        if self.is_logging_step:
            self.log_dict({f"train/{name}": value for name, value in losses.items()}, sync_dist=True)
        return losses["loss"]

    def on_validation_epoch_start(self) -> None:
        """Takes the codec as it is now."""
        self._codec = self.network.codec()

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds up exact errors of the velocities, coded and decoded as the tokenizer does it."""
        assert self._codec is not None, "taken at the start of validation"
        sustain, onset = (batch[name].cpu().numpy().astype(np.uint64) for name in ("sustain", "onset"))
        played = batch["segment_velocity"].cpu().numpy()
        no_place = np.zeros(sustain.size, np.int32)
        cells = Cells(no_place, no_place.astype(np.uint8), sustain, onset, played, 1)
        codes = self._codec.encode(cells)
        self._errors.add(codes, sustain, onset, played, self._codec.decode(codes, sustain, onset))

    def on_validation_epoch_end(self) -> None:
        """Sums over processes and logs the metrics."""
        total = self.trainer.strategy.reduce(
            torch.from_numpy(self._errors.vector).to(self.device), reduce_op="sum"
        )
        metrics = VelocityErrors.from_vector(total.cpu().numpy()).metrics()
        self.log_dict(metrics, sync_dist=True)
        self._errors = VelocityErrors.empty(self.settings.codebook_size)
        if self.seconds_to_target is None and metrics["val/velocity_mae"] <= TARGET_MAE:
            self.seconds_to_target = self.train_seconds

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; linear warm-up, then a cosine down to 0."""
        s = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)

        def factor(step: int) -> float:
            progress = min(step / s.max_steps, 1.0)
            return min((step + 1) / max(s.warmup_steps, 1), 0.5 + 0.5 * math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def export_weights(self, directory: Path) -> None:
        """Writes codec.safetensors and config.json, as `VelocityCodec.from_directory` reads them."""
        self.network.codec().save(directory)

    # The clock of `train_seconds` stands still in validation and goes on where a resumed run left it.

    def on_train_start(self) -> None:
        """Starts the clock."""
        self._clock = time.perf_counter()

    def on_validation_start(self) -> None:
        """Stops it."""
        self._tick()
        super().on_validation_start()
        self._clock = None

    def on_validation_end(self) -> None:
        """Starts it again."""
        self._clock = time.perf_counter()
        super().on_validation_end()

    def on_train_end(self) -> None:
        """Stops it for good."""
        self._tick()
        self._clock = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the clock says."""
        self._tick()
        checkpoint["velvq_clock"] = [self.train_seconds, self.seconds_to_target]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Sets the clock."""
        self.train_seconds, self.seconds_to_target = checkpoint["velvq_clock"]

    def _tick(self) -> None:
        if self._clock is not None and self.trainer.state.fn == "fit":
            now = time.perf_counter()
            self.train_seconds += now - self._clock
            self._clock = now

    def _share(self, count: Tensor | int) -> Tensor:
        """Factor that turns a sum over this process's items into its part of the mean over all processes'.

        DDP averages gradients over processes, which the number of processes in it undoes.
        """
        local = torch.as_tensor(count, dtype=torch.float32, device=self.device)
        if self.trainer.world_size == 1:
            return 1 / local.clamp(min=1)
        return self.trainer.world_size / self.trainer.strategy.reduce(local, reduce_op="sum").clamp(min=1)
