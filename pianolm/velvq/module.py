"""The LightningModule of velocity codecs, the same for both forms.

`pianolm.velvq.network_segment` and `pianolm.velvq.network_frame` define the settings and networks of a form.

Shapes: B cells of a batch, S segments, K codes.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pianolm.music.cells import Cells
from pianolm.tokenizer.velocity import FORMS, VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors
from pianolm.training.throughput import MonitoredModule, Stopwatch

TARGET_MAE = 0.54
"""Error of the published VQ-VAE of this design; the training time to reach it is a metric."""


class VelVQNetwork(nn.Module, ABC):
    """The trained part of a codec; each form has one."""

    @abstractmethod
    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss` of a batch, and its parts for logging."""

    @abstractmethod
    def codec(self) -> VelocityCodec:
        """The codec with the current weights, in NumPy."""


@dataclass(frozen=True)
class VelVQSettings(ABC):
    """Options of `velvq` that determine networks and training, common to both forms.

    Attributes:
        codebook_size: K.
        lr: Peak learning rate; a cosine brings it to 0 at `max_steps`.
        warmup_steps: Steps to the peak.
        decay: Decay of the codes' moving averages in a step.
        dead_code_threshold: A code used by fewer cells of a batch (moving average) restarts at a cell of the batch.
        max_steps: Optimizer steps.
    """

    codebook_size: int
    lr: float
    warmup_steps: int
    decay: float
    dead_code_threshold: float
    max_steps: int

    @classmethod
    def from_config(cls, velvq: Mapping[str, Any]) -> Self:
        """Takes its fields from the group `velvq`."""
        return cls(**{field.name: velvq[field.name] for field in fields(cls)})

    @abstractmethod
    def network(self) -> VelVQNetwork:
        """The networks with fresh weights."""


def settings_of(velvq: Mapping[str, Any]) -> VelVQSettings:
    """Settings of the form that `velvq.form` names."""
    form = velvq["form"]
    assert form in FORMS, f"velvq.form is one of {', '.join(FORMS)}"
    module = importlib.import_module(f"pianolm.velvq.network_{form}")
    settings: type[VelVQSettings] = getattr(module, f"{form.capitalize()}Settings")
    return settings.from_config(velvq)


class VelVQModule(MonitoredModule):
    """Trains a velocity codec of either form.

    A training batch is what `training_losses` of the network reads. A batch of validation or test is a dict of
    `sustain` and `onset` [B] int64 and `segment_velocity` [S] uint8.

    Attributes:
        stopwatch: Training time without validation, also of earlier parts of a resumed run.
        seconds_to_target: Training time until validation reached `TARGET_MAE`; None before.
    """

    monitor = "val/velocity_mae"

    def __init__(self, settings: VelVQSettings) -> None:
        super().__init__("cells")
        self.save_hyperparameters(asdict(settings))
        self.settings = settings
        self.network = settings.network()
        self.stopwatch = Stopwatch()
        self.seconds_to_target: float | None = None
        self._codec: VelocityCodec | None = None
        self._errors = VelocityErrors.empty(settings.codebook_size)

    def forward(self, sustain_B: Tensor, onset_B: Tensor, velocity_S: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [B] and decoded velocities [S] of cells, as the exported codec gives them.

        Args:
            sustain_B: int64, masks of the cells.
            onset_B: int64, masks of the cells.
            velocity_S: uint8, velocities of their segments.
        """
        codec, cells = self.network.codec(), _cells(sustain_B, onset_B, velocity_S)
        codes = codec.encode(cells)
        return torch.from_numpy(codes), torch.from_numpy(codec.decode(codes, cells.sustain, cells.onset))

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        losses = self.network.training_losses(batch)
        cells = sum(len(part) for name, part in batch.items() if name.startswith("velocity"))
        self.log_throughput(cells)
        if self.is_logging_step:
            self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return losses["loss"]

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds the errors of a batch to the sums."""
        self._add_errors(batch)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds the errors of a batch to the sums."""
        self._add_errors(batch)

    def _add_errors(self, batch: Mapping[str, Tensor]) -> None:
        assert self._codec is not None, "set at the start of the epoch"
        cells = _cells(batch["sustain"], batch["onset"], batch["segment_velocity"])
        codes = self._codec.encode(cells)
        decoded = self._codec.decode(codes, cells.sustain, cells.onset)
        self._errors.add(codes, cells.sustain, cells.onset, cells.segment_velocity, decoded)

    def on_validation_epoch_start(self) -> None:
        """Makes the codec with the current weights."""
        self._codec = self.network.codec()

    def on_test_epoch_start(self) -> None:
        """Makes the codec with the current weights."""
        self._codec = self.network.codec()

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of all batches."""
        metrics = self._metrics()
        self.log_dict(metrics)
        if self.seconds_to_target is None and metrics["val/velocity_mae"] <= TARGET_MAE:
            self.seconds_to_target = self.stopwatch.seconds

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of all batches."""
        self.log_dict({f"test/{name.removeprefix('val/')}": value for name, value in self._metrics().items()})

    def _metrics(self) -> dict[str, float]:
        """Metrics of the errors so far, which are then cleared."""
        metrics = self._errors.metrics()
        self._errors = VelocityErrors.empty(self.settings.codebook_size)
        return metrics

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam; linear warm-up, then a cosine down to 0."""
        s = self.settings
        optimizer = torch.optim.Adam(self.parameters(), lr=s.lr)

        def factor(step: int) -> float:
            progress = min(step / s.max_steps, 1.0)
            return min((step + 1) / max(s.warmup_steps, 1), 0.5 + 0.5 * math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def export_weights(self, directory: Path) -> None:
        """Writes codec.safetensors and config.json, as `VelocityCodec.from_directory` reads them."""
        self.network.codec().save(directory)

    def on_train_start(self) -> None:
        """Starts to measure training time."""
        self.stopwatch.start()

    def on_validation_start(self) -> None:
        """Validation does not count as training time."""
        super().on_validation_start()
        self.stopwatch.stop()

    def on_validation_end(self) -> None:
        """Continues to measure training time."""
        super().on_validation_end()
        if self.trainer.state.fn == "fit":
            self.stopwatch.start()

    def on_train_end(self) -> None:
        """Stops to measure training time."""
        self.stopwatch.stop()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the training time."""
        checkpoint["velvq_seconds"] = [self.stopwatch.lap(), self.seconds_to_target]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the training time."""
        self.stopwatch.seconds, self.seconds_to_target = checkpoint["velvq_seconds"]


def _cells(sustain_B: Tensor, onset_B: Tensor, velocity_S: Tensor) -> Cells:
    """Cells of a batch. Beat and pitch, which codecs do not read, are 0."""
    sustain, onset = (mask.cpu().numpy().astype(np.uint64) for mask in (sustain_B, onset_B))
    beat, pitch = np.zeros(sustain.size, np.int32), np.zeros(sustain.size, np.uint8)
    return Cells(beat, pitch, sustain, onset, velocity_S.cpu().numpy(), n_beats=1)
