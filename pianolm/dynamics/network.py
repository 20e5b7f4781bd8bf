"""The network of the dynamics model: a bidirectional transformer over notes.

Attention knows how far notes are apart in beats and in semitones: half of each head is rotated by the onset, the other
half by the pitch (rotary embeddings, Su et al. 2021, on two axes).

Shapes: B pieces of a batch, N notes, W width, H heads, D = W / H, F features, V = 32 velocity bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pianolm.dynamics.features import FEATURES, HEAD_WIDTH, LONGEST_BAR, VELOCITY_BINS
from pianolm.music.beats import FRAMES

_PITCHES = 128
_LEVEL_CENTRE, _LEVEL_SCALE = 64.0, 16.0
_BEAT_WAVES = (0.25, 512.0)
_PITCH_WAVES = (2.0, 256.0)
"""Shortest and longest wavelengths of the rotations, in beats and in semitones."""


@dataclass(frozen=True)
class DynamicsSizes:
    """Sizes of the network.

    Attributes:
        width: W, a multiple of 32.
        layers: Number of blocks.
    """

    width: int
    layers: int


def _rotations(places_BN: Tensor, waves: tuple[float, float], count: int) -> Tensor:
    """[B, N, count] angles of places at `count` wavelengths in geometric progression."""
    exponents = torch.linspace(0, 1, count, device=places_BN.device)
    wavelengths = waves[0] * (waves[1] / waves[0]) ** exponents
    return places_BN[..., None] * (2 * math.pi / wavelengths)


def _rotated(x_BHND: Tensor, angle_BND2: Tensor) -> Tensor:
    cos, sin = angle_BND2.cos()[:, None], angle_BND2.sin()[:, None]
    one, other = x_BHND.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)  # every block begins as nothing
        nn.init.zeros_(self.down.weight)

    def forward(self, x_BNW: Tensor, angle_BND2: Tensor, mask_B11N: Tensor) -> Tensor:
        batch, length, width = x_BNW.shape
        qkv = self.qkv(self.attention_norm(x_BNW)).view(batch, length, 3, self.heads, HEAD_WIDTH)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = _rotated(query, angle_BND2), _rotated(key, angle_BND2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_B11N)
        x_BNW = x_BNW + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return x_BNW + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x_BNW)))))


class DynamicsNetwork(nn.Module):
    """Logits of velocity bins for every note.

    Args:
        sizes: Sizes.
        dropout: Share of hidden values left out in training.
    """

    def __init__(self, sizes: DynamicsSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.pitch = nn.Embedding(_PITCHES, width)
        self.frame = nn.Embedding(FRAMES, width)
        self.bar_position = nn.Embedding(LONGEST_BAR + 1, width)
        self.bar_length = nn.Embedding(LONGEST_BAR + 1, width)
        self.velocity = nn.Embedding(VELOCITY_BINS + 1, width)
        self.values = nn.Linear(FEATURES, width)
        self.level = nn.Linear(2, width, bias=False)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(width)
        self.output = nn.Linear(width, VELOCITY_BINS)
        for embedding in (self.pitch, self.frame, self.bar_position, self.bar_length, self.velocity):
            nn.init.normal_(embedding.weight, std=0.02 * math.sqrt(width) / 2)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[B, N, V] logits.

        Args:
            batch: `pitch`, `frame`, `bar_position`, `bar_length`, `velocity` [B, N] int64, the last one a bin or
                `UNKNOWN_VELOCITY`; `onset_beat` [B, N] and `values` [B, N, F] float32; `level` [B] the median velocity
                of the piece, NaN where it is not told; `is_note` [B, N] bool, False after the last note.
        """
        level_B = (batch["level"] - _LEVEL_CENTRE) / _LEVEL_SCALE
        is_told_B = ~torch.isnan(level_B)
        told_B2 = torch.stack([torch.nan_to_num(level_B), is_told_B.float()], dim=1)
        hidden = self.values(batch["values"]) + self.level(told_B2)[:, None]
        for name in ("pitch", "frame", "bar_position", "bar_length", "velocity"):
            hidden = hidden + getattr(self, name)(batch[name])
        angles = torch.cat(
            [
                _rotations(batch["onset_beat"], _BEAT_WAVES, HEAD_WIDTH // 4),
                _rotations(batch["pitch"].float(), _PITCH_WAVES, HEAD_WIDTH // 4),
            ],
            dim=-1,
        )
        mask_B11N = batch["is_note"][:, None, None]
        for block in self.blocks:
            hidden = block(hidden, angles, mask_B11N)
        logits_BNV: Tensor = self.output(self.norm(hidden))
        return logits_BNV
