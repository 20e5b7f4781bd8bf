"""The LightningModule of the dynamics model.

Shapes: B windows of a batch, N notes, V = 32 velocity bins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from pianolm.dynamics.features import BIN_CENTRES, BIN_WIDTH, VELOCITY_BINS
from pianolm.dynamics.files import CONFIG_FILE, FORMAT, WEIGHTS_FILE
from pianolm.dynamics.network import DynamicsNetwork, DynamicsSizes
from pianolm.training.adamw import adamw_with_cosine
from pianolm.training.small_network import ExportedModule


@dataclass(frozen=True)
class DynamicsSettings:
    """The network and its training; the first four are options of the group `dynamics`, the others are fixed.

    Attributes:
        width: Width of the network, a multiple of 32.
        layers: Blocks.
        lr: Peak learning rate; a cosine brings it to 0 at `max_steps`.
        max_steps: Optimizer steps.
        dropout: Share of hidden values left out in training.
        warmup_steps: Steps to the peak.
        weight_decay: Weight decay of matrices.
    """

    width: int
    layers: int
    lr: float
    max_steps: int
    dropout: float = 0.1
    warmup_steps: int = 100
    weight_decay: float = 0.05

    @classmethod
    def from_config(cls, dynamics: Mapping[str, Any]) -> DynamicsSettings:
        """Takes its fields from the group `dynamics`."""
        return cls(*(dynamics[name] for name in ("width", "layers", "lr", "max_steps")))


def bin_shares(velocity: Tensor) -> Tensor:
    """[…, V] shares of the two bins nearest to velocities […], whose mean is the velocity."""
    place = ((velocity.float() - (BIN_WIDTH - 1) / 2) / BIN_WIDTH).clamp(0, VELOCITY_BINS - 1)
    low = place.floor().long().clamp(max=VELOCITY_BINS - 2)
    upper = (place - low)[..., None]
    return F.one_hot(low, VELOCITY_BINS) * (1 - upper) + F.one_hot(low + 1, VELOCITY_BINS) * upper


class DynamicsModule(ExportedModule):
    """Trains the network on batches of `pianolm.dynamics.batches`.

    Args:
        settings: Sizes and training.
    """

    monitor = "val/loss"
    centres: Tensor

    def __init__(self, settings: DynamicsSettings) -> None:
        super().__init__("notes")
        self.save_hyperparameters(asdict(settings))
        self.settings = settings
        self.network = DynamicsNetwork(DynamicsSizes(settings.width, settings.layers), settings.dropout)
        self.register_buffer("centres", torch.tensor(BIN_CENTRES, dtype=torch.float32), persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[B, N, V] logits."""
        logits_BNV: Tensor = self.network(batch)
        return logits_BNV

    def _loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of a hidden note, in nats, and the logits."""
        logits_BNV, hidden_BN = self(batch), batch["target"] > 0
        entropy = -(bin_shares(batch["target"]) * logits_BNV.float().log_softmax(dim=-1)).sum(dim=-1)
        return (entropy * hidden_BN).sum() / hidden_BN.sum().clamp(min=1), logits_BNV

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss, _ = self._loss(batch)
        self.log_throughput(int(batch["is_note"].sum()))
        if self.is_logging_step:
            self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """The loss, and the correlation and error of expected velocities, as means over windows."""
        loss, logits_BNV = self._loss(batch)
        size = len(logits_BNV)
        self.log("val/loss", loss, batch_size=size)
        expected_BN = logits_BNV.float().softmax(dim=-1) @ self.centres
        correlation, error = [], []
        for expected, target in zip(expected_BN, batch["target"], strict=True):
            found, played = expected[target > 0], target[target > 0].float()
            error.append((found - played).abs().mean())
            pair = torch.stack([found, played])
            flat = pair.std(dim=1).min() < 1e-6  # of one note, or of equal ones
            correlation.append(torch.zeros(()) if flat else torch.corrcoef(pair)[0, 1].cpu())
        self.log("val/velocity_r", torch.stack(correlation).mean(), batch_size=size)
        self.log("val/velocity_mae", torch.stack(error).mean(), batch_size=size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; linear warm-up, then a cosine down to 0."""
        s = self.settings
        return adamw_with_cosine(self, s.lr, s.max_steps, s.warmup_steps, s.weight_decay)

    def export_weights(self, directory: Path) -> None:
        """Writes the network as `pianolm.dynamics.renderer.DynamicsModel.from_pretrained` reads it, in 16 bits."""
        tensors = {
            name: t.detach().half().cpu().contiguous() for name, t in self.network.state_dict().items()
        }
        save_file(tensors, directory / WEIGHTS_FILE)
        config = {"format": FORMAT, **asdict(self.network.sizes)}
        (directory / CONFIG_FILE).write_text(json.dumps(config) + "\n", "utf-8")
