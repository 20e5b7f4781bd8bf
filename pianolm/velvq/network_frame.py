"""The networks of `velvq=frame`: a VQ-VAE over the frames of a cell, one code a cell.

Shapes: B cells of a batch, F = 48 frames of a beat, D latent width, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from pianolm.music.beats import FRAMES
from pianolm.tokenizer.velocity.frame import VELOCITY_CENTRE, VELOCITY_SCALE, FrameCodec
from pianolm.velvq.module import VelVQNetwork, VelVQSettings


@dataclass(frozen=True)
class FrameSettings(VelVQSettings):
    """Options of `velvq=frame` that determine networks and training.

    Attributes:
        hidden: Width of the hidden layers.
        latent: D.
        depth: Hidden layers of the encoder, and of the decoder before its output layers.
        commitment: Weight of the distance between latents and their codes.
    """

    hidden: int
    latent: int
    depth: int
    commitment: float

    def network(self) -> FrameVelVQ:
        """The networks."""
        return FrameVelVQ(self)


class VelVQOutput(NamedTuple):
    """Output of the networks for a batch.

    Attributes:
        frames: [B, F] decoded velocities, normalised.
        codes: [B] int64.
        commitment: Weighted commitment loss, a mean over cells; 0 in evaluation mode.
    """

    frames: Tensor
    codes: Tensor
    commitment: Tensor


class MLP(nn.Sequential):
    """Linear layers of the given widths with ReLU between them, not after the last."""

    def __init__(self, widths: list[int]) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.widths = widths

    def linears(self) -> list[nn.Linear]:
        """The linear layers in order."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]


class FrameVelVQ(VelVQNetwork):
    """Encodes velocities and activity mask of F frames as one code; decodes code and mask to velocities.

    The decoder reads the mask twice, beside the latent and before its output layers, so that the code need not hold
    what the mask already says.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: FrameSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden, latent = settings.hidden, settings.latent
        self.encoder = MLP([2 * FRAMES, *[hidden] * settings.depth, latent])
        self.quantizer = ResidualVQ(
            dim=latent,
            num_quantizers=1,
            codebook_size=settings.codebook_size,
            kmeans_init=True,
            decay=settings.decay,
            threshold_ema_dead_code=settings.dead_code_threshold,
            commitment_weight=settings.commitment,
            rotation_trick=False,
        )
        self.decoder = MLP([latent + FRAMES, *[hidden] * settings.depth])
        self.activate = nn.ReLU()
        self.output = MLP([hidden + FRAMES, hidden, FRAMES])

    def forward(self, velocity_BF: Tensor) -> VelVQOutput:
        """Encodes, quantizes and decodes velocities [B, F] uint8, 0 where silent."""
        mask_BF = (velocity_BF > 0).float()
        latent_BD = self.encoder(torch.cat([normalise(velocity_BF), mask_BF], dim=1))
        quantized_BD, codes_B1, commitment = self.quantizer(latent_BD)
        return VelVQOutput(self.decode(quantized_BD, mask_BF), codes_B1[:, 0], commitment.sum())

    def decode(self, latent_BD: Tensor, mask_BF: Tensor) -> Tensor:
        """[B, F] normalised velocities from latents [B, D] and activity masks [B, F] (0 or 1)."""
        hidden = self.activate(self.decoder(torch.cat([latent_BD, mask_BF], dim=1)))
        frames_BF: Tensor = self.output(torch.cat([hidden, mask_BF], dim=1))
        return frames_BF

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error over the active frames of the batch, and the commitment loss.

        Args:
            batch: `velocity` [B, F] uint8.
        """
        velocity_BF = batch["velocity"]
        output = self(velocity_BF)
        active_BF = velocity_BF > 0
        squared = (output.frames - normalise(velocity_BF)).square() * active_BF
        reconstruction = squared.sum() / active_BF.sum()
        return {
            "loss": reconstruction + output.commitment,
            "reconstruction": reconstruction,
            "commitment": output.commitment,
        }

    def codec(self) -> FrameCodec:
        """The codec with the current weights, in NumPy."""
        networks = {"encoder": self.encoder, "decoder": self.decoder, "output": self.output}
        config = {
            "form": FrameCodec.form,
            "codebook_size": self.settings.codebook_size,
            "widths": {name: network.widths for name, network in networks.items()},
        }
        tensors = {"codebook": self.quantizer.codebooks[0]}
        for name, network in networks.items():
            for i, layer in enumerate(network.linears()):
                tensors |= {f"{name}.{i}.weight": layer.weight, f"{name}.{i}.bias": layer.bias}
        arrays = {
            name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in tensors.items()
        }
        return FrameCodec(config, arrays)


def normalise(velocity: Tensor) -> Tensor:
    """MIDI velocities, uint8, in the networks' units; silent frames (0) give 0."""
    return (velocity.float() - VELOCITY_CENTRE) / VELOCITY_SCALE * (velocity > 0)
