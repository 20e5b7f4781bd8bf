"""The reference form of the velocity codec's networks: a VQ-VAE over the frames of a cell, one code a cell.

Shapes: B cells of a batch, n frames of a beat that the codec sees, D latent width, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from pianolm.errors import UserError
from pianolm.tokenizer.velocity.frame import (
    ACTIVATIONS,
    VELOCITY_CENTRE,
    VELOCITY_SCALE,
    FrameCodec,
    nearest_frames,
)
from pianolm.velvq.module import Share, VelVQNetwork, VelVQSettings

_ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}


@dataclass(frozen=True)
class FrameSettings(VelVQSettings):
    """The part of `velvq=frame` that determines networks and training.

    Attributes:
        frames: Frames a beat that the codec sees, a divisor of 48.
        hidden: Width of the hidden layers.
        latent: D.
        depth: Hidden layers of the encoder, and of the decoder before its output layers.
        activation: silu or relu.
        commitment: Weight of the distance between latents and their codes.
        see_onset: Whether the networks see where keys are struck, beside where they sound.
    """

    frames: int
    hidden: int
    latent: int
    depth: int
    activation: str
    commitment: float
    see_onset: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        nearest_frames(self.frames)
        if self.activation not in ACTIVATIONS:
            raise UserError(
                f"velvq.activation={self.activation!r} found, expected one of {', '.join(ACTIVATIONS)}"
            )
        self.check_positive("hidden", "latent", "depth")

    def network(self, distributed: bool) -> FrameVelVQ:
        """The networks."""
        return FrameVelVQ(self, distributed)


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


class FrameVelVQ(VelVQNetwork):
    """Velocities and pattern of n frames → one code; the code and the pattern → velocities of n frames.

    The pattern is the activity mask, and with `see_onset` the strikes behind it: m = n or 2 n numbers. The decoder is
    given it twice: beside the latent, and again before its output layers, so that the code need not spend anything on
    what the pattern tells.

    Args:
        settings: Sizes.
        distributed: Whether the codes' averages are summed over processes; a process group must exist then.
    """

    def __init__(self, settings: FrameSettings, distributed: bool = False) -> None:
        super().__init__()
        self.settings = settings
        n, hidden, latent, act = settings.frames, settings.hidden, settings.latent, settings.activation
        m = 2 * n if settings.see_onset else n
        self.encoder = MLP([n + m, *[hidden] * settings.depth, latent], act)
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
        self.decoder = MLP([latent + m, *[hidden] * settings.depth], act)
        self.activate = _ACTIVATIONS[act]()
        self.output = MLP([hidden + m, hidden, n], act)

    def forward(self, velocity_Bn: Tensor, onset_Bn: Tensor | None = None) -> VelVQOutput:
        """Encodes, quantizes and decodes.

        Args:
            velocity_Bn: [B, n] uint8 as `pianolm.tokenizer.velocity.frame.resample` gives them, 0 silent.
            onset_Bn: [B, n] bool as `tokenizer.velocity.frame.resample_onsets` gives them, with `see_onset` only.
        """
        assert (onset_Bn is not None) == self.settings.see_onset, "onsets with see_onset, and only then"
        active_Bn = velocity_Bn > 0
        pattern_Bm = (active_Bn if onset_Bn is None else torch.cat([active_Bn, onset_Bn], dim=1)).float()
        latent_BD = self.encoder(torch.cat([normalise(velocity_Bn), pattern_Bm], dim=1))
        quantized_BD, codes_B1, commitment = self.quantizer(latent_BD)
        return VelVQOutput(self.decode(quantized_BD, pattern_Bm), codes_B1[:, 0], commitment.sum())

    def decode(self, latent_BD: Tensor, pattern_Bm: Tensor) -> Tensor:
        """[B, n] normalised velocities from latents [B, D] and patterns [B, m] (0 or 1)."""
        hidden = self.activate(self.decoder(torch.cat([latent_BD, pattern_Bm], dim=1)))
        frames_Bn: Tensor = self.output(torch.cat([hidden, pattern_Bm], dim=1))
        return frames_Bn

    def training_losses(self, batch: Mapping[str, Tensor], share: Share) -> dict[str, Tensor]:
        """Mean squared error over the active frames of the global batch, and the commitment loss.

        In full precision: rounding to bf16 at the output alone would cost a third of a MIDI unit.
        """
        velocity_Bn = batch["velocity"]
        with torch.autocast(velocity_Bn.device.type, enabled=False):
            output = self(velocity_Bn, batch.get("struck"))
        active_Bn = velocity_Bn > 0
        squared = (output.frames - normalise(velocity_Bn)).square() * active_Bn
        reconstruction = squared.sum() * share(active_Bn.sum())
        commitment = output.commitment * len(velocity_Bn) * share(len(velocity_Bn))
        return {
            "loss": reconstruction + commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
        }

    def codec(self) -> FrameCodec:
        """The same codec in NumPy."""
        networks = {"encoder": self.encoder, "decoder": self.decoder, "output": self.output}
        config = {
            "form": FrameCodec.form,
            "frames": self.settings.frames,
            "codebook_size": self.settings.codebook_size,
            "activation": self.settings.activation,
            "widths": {name: network.widths for name, network in networks.items()},
        }
        tensors = {"codebook": self.quantizer.codebooks[0]}
        for name, network in networks.items():
            for i, layer in enumerate(network.linears()):
                tensors |= {f"{name}.{i}.weight": layer.weight, f"{name}.{i}.bias": layer.bias}
        if (
            self.settings.see_onset
        ):  # not said where false, so that a codec without onsets keeps its fingerprint
            config["see_onset"] = True
        return FrameCodec(
            config, {k: t.detach().float().cpu().contiguous().numpy() for k, t in tensors.items()}
        )


def normalise(velocity: Tensor) -> Tensor:
    """MIDI velocities, uint8, in the networks' units; silent frames (0) give 0."""
    return (velocity.float() - VELOCITY_CENTRE) / VELOCITY_SCALE * (velocity > 0)
