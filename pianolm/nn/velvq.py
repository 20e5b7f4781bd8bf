"""The velocity codec's networks and their training: a VQ-VAE over the frames of a cell, one code a cell.

Shapes: B cells of a batch, n frames of a beat that the codec sees, D latent width, K codes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from pianolm.errors import UserError
from pianolm.tokens.velocity import (
    ACTIVATIONS,
    FORM,
    VELOCITY_CENTRE,
    VELOCITY_SCALE,
    VelocityCodec,
    nearest_frames,
    segment_velocities,
)
from pianolm.tokens.velocity_errors import VelocityErrors

_ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}
TARGET_MAE = 0.54
"""What the published reference of this design reaches; the time to get there is a metric."""


@dataclass(frozen=True)
class VelVQSettings:
    """The part of `velvq.*` that determines networks and training.

    Attributes:
        frames: Frames a beat that the codec sees, a divisor of 48.
        codebook_size: K.
        hidden: Width of the hidden layers.
        latent: D.
        depth: Hidden layers of the encoder, and of the decoder before its output layers.
        activation: silu or relu.
        learning_rate: Highest, after the warm-up.
        warmup_steps: Steps to get there; a cosine brings it down to 0 at `max_steps`.
        weight_decay: Of AdamW.
        commitment: Weight of the distance between latents and their codes.
        decay: Of the codes' moving averages, per step.
        dead_code_threshold: A code used by fewer cells a batch than this (moving average) restarts at a cell
            of the batch.
        max_steps: Optimizer steps.
    """

    frames: int
    codebook_size: int
    hidden: int
    latent: int
    depth: int
    activation: str
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    commitment: float
    decay: float
    dead_code_threshold: float
    max_steps: int

    def __post_init__(self) -> None:
        nearest_frames(self.frames)
        if self.activation not in ACTIVATIONS:
            raise UserError(
                f"velvq.activation={self.activation!r} found, expected one of {', '.join(ACTIVATIONS)}"
            )
        for name in ("codebook_size", "hidden", "latent", "depth", "max_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"velvq.{name}={getattr(self, name)} found, expected at least 1")
        if not 0 <= self.decay < 1:
            raise UserError(f"velvq.decay={self.decay} found, expected a number in [0, 1)")

    @classmethod
    def from_config(cls, velvq: Mapping[str, Any]) -> VelVQSettings:
        """Picks its fields out of the `velvq` group."""
        return cls(**{field.name: velvq[field.name] for field in fields(cls)})


class VelVQOutput(NamedTuple):
    """What the codec makes of a batch.

    Attributes:
        frames: [B, n] decoded velocities, normalised.
        codes: [B] int64.
        commitment: Weighted commitment loss, a mean over cells; 0 outside training.
    """

    frames: Tensor
    codes: Tensor
    commitment: Tensor


class MLP(nn.Sequential):
    """Linear layers of the given widths with an activation between them, not after the last."""

    def __init__(self, widths: list[int], activation: str) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), _ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])
        self.widths = widths

    def linears(self) -> list[nn.Linear]:
        """The linear layers in order."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]


class FrameVelVQ(nn.Module):
    """Velocities of n frames → one code; the code and the activity mask → velocities of n frames.

    The decoder is given the mask twice: beside the latent, and again before its output layers, so that the
    code need not spend anything on what the pattern tells.

    Args:
        settings: Sizes.
        distributed: Whether the codes' averages are summed over processes; a process group must exist then.
    """

    def __init__(self, settings: VelVQSettings, distributed: bool = False) -> None:
        super().__init__()
        self.settings = settings
        n, hidden, latent, act = settings.frames, settings.hidden, settings.latent, settings.activation
        self.encoder = MLP([2 * n, *[hidden] * settings.depth, latent], act)
        self.quantizer = ResidualVQ(
            dim=latent,
            num_quantizers=1,
            codebook_size=settings.codebook_size,
            kmeans_init=True,
            decay=settings.decay,
            threshold_ema_dead_code=settings.dead_code_threshold,
            commitment_weight=settings.commitment,
            rotation_trick=False,
            sync_codebook=distributed,
        )
        self.decoder = MLP([latent + n, *[hidden] * settings.depth], act)
        self.activate = _ACTIVATIONS[act]()
        self.output = MLP([hidden + n, hidden, n], act)

    def forward(self, velocity_Bn: Tensor) -> VelVQOutput:
        """Encodes, quantizes and decodes.

        Args:
            velocity_Bn: [B, n] uint8 as `pianolm.tokens.velocity.resample` gives them, 0 silent.
        """
        mask_Bn = (velocity_Bn > 0).float()
        latent_BD = self.encoder(torch.cat([normalise(velocity_Bn), mask_Bn], dim=1))
        quantized_BD, codes_B1, commitment = self.quantizer(latent_BD)
        return VelVQOutput(self.decode(quantized_BD, mask_Bn), codes_B1[:, 0], commitment.sum())

    def decode(self, latent_BD: Tensor, mask_Bn: Tensor) -> Tensor:
        """[B, n] normalised velocities from latents [B, D] and activity [B, n] (0 or 1)."""
        hidden = self.activate(self.decoder(torch.cat([latent_BD, mask_Bn], dim=1)))
        frames_Bn: Tensor = self.output(torch.cat([hidden, mask_Bn], dim=1))
        return frames_Bn

    def codec(self) -> VelocityCodec:
        """The same codec in NumPy."""
        networks = {"encoder": self.encoder, "decoder": self.decoder, "output": self.output}
        config = {
            "form": FORM,
            "frames": self.settings.frames,
            "codebook_size": self.settings.codebook_size,
            "activation": self.settings.activation,
            "widths": {name: network.widths for name, network in networks.items()},
        }
        tensors = {"codebook": self.quantizer.codebooks[0]}
        for name, network in networks.items():
            for i, layer in enumerate(network.linears()):
                tensors |= {f"{name}.{i}.weight": layer.weight, f"{name}.{i}.bias": layer.bias}
        return VelocityCodec(
            config, {k: t.detach().float().cpu().contiguous().numpy() for k, t in tensors.items()}
        )


def normalise(velocity: Tensor) -> Tensor:
    """MIDI velocities, uint8, in the networks' units; silent frames (0) give 0."""
    return (velocity.float() - VELOCITY_CENTRE) / VELOCITY_SCALE * (velocity > 0)


class VelVQModule(L.LightningModule):
    """Trains a `FrameVelVQ`.

    A batch is a dict: `velocity` [B, n] uint8; for validation also `sustain` and `onset` [B] int64 and
    `segment_velocity` [S] uint8.
    """

    def __init__(self, settings: VelVQSettings) -> None:
        super().__init__()
        self.settings = settings
        self.model: FrameVelVQ | None = None
        self.train_seconds = 0.0
        self.seconds_to_target: float | None = None
        self._errors = VelocityErrors.empty(settings.codebook_size)
        self._clock: float | None = None
        self._seconds_before = 0.0

    def configure_model(self) -> None:
        """Builds the networks, here because the quantizer has to know whether there is a process group."""
        if self.model is None:
            group = torch.distributed.is_available() and torch.distributed.is_initialized()
            self.model = FrameVelVQ(self.settings, group and torch.distributed.get_world_size() > 1)

    @property
    def network(self) -> FrameVelVQ:
        """The networks, built if they are not yet."""
        self.configure_model()
        assert self.model is not None, "configure_model builds it"
        return self.model

    def model_step(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, VelVQOutput]:
        """Squared errors and frame count of a batch, and what the model gave.

        In full precision: rounding to bf16 at the output alone would cost a third of a MIDI unit.
        """
        velocity_Bn = batch["velocity"]
        with torch.autocast(velocity_Bn.device.type, enabled=False):
            output = self.network(velocity_Bn)
        active_Bn = velocity_Bn > 0
        squared = (output.frames - normalise(velocity_Bn)).square() * active_Bn
        return squared.sum(), active_Bn.sum(), output

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Mean squared error over the active frames of the global batch, and the commitment loss."""
        squared, frames, output = self.model_step(batch)
        reconstruction = squared * self._share(frames)
        commitment = output.commitment * len(batch["velocity"]) * self._share(len(batch["velocity"]))
        loss = reconstruction + commitment
        self.log("train/loss", loss)
        self.log("train/reconstruction", reconstruction)
        self.log("train/commitment", commitment)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds up exact errors of the velocities decoded as the tokenizer decodes them."""
        _, _, output = self.model_step(batch)
        frames_Bn = output.frames.float().cpu().numpy() * VELOCITY_SCALE + VELOCITY_CENTRE
        sustain, onset = (batch[name].cpu().numpy().astype(np.uint64) for name in ("sustain", "onset"))
        decoded = segment_velocities(frames_Bn, sustain, onset)
        played = batch["segment_velocity"].cpu().numpy()
        self._errors.add(output.codes.cpu().numpy(), sustain, onset, played, decoded)

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

    @property
    def seconds_here(self) -> float:
        """Training time of this run alone."""
        return self.train_seconds - self._seconds_before

    def on_train_start(self) -> None:
        """Starts the clock."""
        self._seconds_before, self._clock = self.train_seconds, time.perf_counter()

    def on_validation_start(self) -> None:
        """Stops it."""
        self._tick()
        self._clock = None

    def on_validation_end(self) -> None:
        """Starts it again."""
        self._clock = time.perf_counter()

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
