"""The network of `velvq=segment`, the default: a vector quantizer for each number of segments, without an encoder.

The velocities of a cell of n segments are a point in n dimensions. For each n a quantizer learns K codes among these
points (k-means at first, then moving averages), and a learned offset moves each decoded code to where the measured
error is least. A cell takes the code whose decoded velocities are nearest, each segment weighted by its length in
frames. Exporting numbers the codes from soft to loud for every n, so that a number means about the same loudness
everywhere.

Shapes: B cells of a batch, n segments, K codes, N largest number of segments (`max_segments`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from pianolm.tokenizer.velocity.segment import VELOCITIES, SegmentCodec, segment_least
from pianolm.velvq.module import VelVQNetwork, VelVQSettings


@dataclass(frozen=True)
class SegmentSettings(VelVQSettings):
    """Options of `velvq=segment` that determine the codec and its training.

    Attributes:
        max_segments: N, the largest number of segments that have velocities of their own.
    """

    max_segments: int

    def network(self) -> SegmentVelVQ:
        """The quantizers."""
        return SegmentVelVQ(self)


class SegmentVelVQ(VelVQNetwork):
    """Quantizers and decoder offsets for each number of segments.

    Args:
        settings: Sizes.
    """

    def __init__(self, settings: SegmentSettings) -> None:
        super().__init__()
        self.settings = settings
        numbers = range(segment_least(settings.codebook_size), settings.max_segments + 1)
        self.quantizers = nn.ModuleDict(
            {
                str(n): VectorQuantize(
                    dim=n,
                    codebook_size=settings.codebook_size,
                    kmeans_init=True,
                    decay=settings.decay,
                    threshold_ema_dead_code=settings.dead_code_threshold,
                    commitment_weight=0.0,
                    rotation_trick=False,
                )
                for n in numbers
            }
        )
        self.offsets = nn.ParameterDict(
            {str(n): nn.Parameter(torch.zeros(settings.codebook_size, n)) for n in numbers}
        )

    def _by_segments(self) -> Iterator[tuple[str, VectorQuantize]]:
        """Numbers of segments and their quantizers."""
        yield from self.quantizers.items()

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean absolute error per frame, averaged over the numbers of segments; one step of the moving averages.

        Args:
            batch: `velocity_n` and `length_n` [B, n] uint8 for every n that occurs in the data.
        """
        losses = {}
        for n, quantizer in self._by_segments():
            if f"velocity_{n}" not in batch:
                continue
            velocity_Bn, length_Bn = batch[f"velocity_{n}"].float(), batch[f"length_{n}"].float()
            if not is_initialized(quantizer):
                quantizer(velocity_Bn[:, None])  # runs k-means
            decoded_Kn = quantizer.codebook + self.offsets[n]
            code_B = _nearest(velocity_Bn, length_Bn, decoded_Kn.detach())
            error_Bn = (velocity_Bn - nn.functional.embedding(code_B, decoded_Kn)).abs() * length_Bn
            losses[f"reconstruction_{n}"] = error_Bn.sum() / length_Bn.sum()
            quantizer.update_indices(velocity_Bn[:, None], code_B[:, None])
        if not losses:  # every cell has one segment, whose velocities need no learning
            return {"loss": torch.stack([0 * offset.sum() for offset in self.offsets.values()]).sum()}
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}

    def codec(self) -> SegmentCodec:
        """The codec with the current weights, in NumPy; its velocities are rounded."""
        learned = {}
        for n, quantizer in self._by_segments():
            if is_initialized(quantizer):
                decoded_Kn = (quantizer.codebook + self.offsets[n]).detach().float().cpu().numpy()
                learned[int(n)] = np.clip(np.rint(decoded_Kn), 1, VELOCITIES).astype(np.uint8)
        return SegmentCodec.from_tables(
            number_codes(learned, self.settings.codebook_size, self.settings.max_segments)
        )


@torch.no_grad()
def _nearest(velocity_Bn: Tensor, length_Bn: Tensor, decoded_Kn: Tensor) -> Tensor:
    """[B] code with the least absolute error over frames."""
    segments = zip(velocity_Bn.T, length_Bn.T, decoded_Kn.T, strict=True)
    errors_BK = ((v[:, None] - c).abs() * w[:, None] for v, w, c in segments)
    return functools.reduce(torch.Tensor.add_, errors_BK).argmin(dim=1)


def is_initialized(quantizer: VectorQuantize) -> bool:
    """Whether k-means has run on a batch."""
    return bool(quantizer._codebook.initted)


def number_codes(
    learned: Mapping[int, NDArray[np.uint8]], codebook_size: int, max_segments: int
) -> list[NDArray[np.uint8]]:
    """Velocities [K, 1], [K, 2], …, [K, N] of codes numbered from soft to loud.

    Args:
        learned: [K, n] by n, in any order. Where an n is missing, all segments of a code have one velocity.
        codebook_size: K.
        max_segments: N.
    """
    ordered = {n: table[np.lexsort((*table.T[::-1], table.sum(axis=1)))] for n, table in learned.items()}
    loudness = ordered[2].mean(axis=1) if 2 in ordered else np.linspace(1, VELOCITIES, codebook_size)
    if 1 in ordered:
        one = ordered[1]
    elif codebook_size >= VELOCITIES:
        one = staircase(loudness)[:, None]
    else:
        one = np.rint(loudness)[:, None].astype(np.uint8)
    return [one, *(ordered.get(n, np.repeat(one, n, axis=1)) for n in range(2, max_segments + 1))]


def staircase(loudness_K: NDArray[np.floating]) -> NDArray[np.uint8]:
    """[K ≥ 127] ascending velocities with each of 1 … 127 among them, otherwise as near to `loudness_K` as possible.

    Dynamic programming over codes and velocities: a code takes the velocity of the code before it, or the next higher.
    """
    velocity = np.arange(1, VELOCITIES + 1)
    stepped = np.zeros((loudness_K.size, VELOCITIES), bool)
    cost = np.full(VELOCITIES, np.inf)
    cost[0] = abs(loudness_K[0] - 1)
    for k in range(1, loudness_K.size):
        from_below = np.concatenate([[np.inf], cost[:-1]])
        stepped[k] = from_below < cost
        cost = np.minimum(cost, from_below) + np.abs(loudness_K[k] - velocity)
    chosen = np.empty(loudness_K.size, np.uint8)
    at = VELOCITIES - 1
    for k in range(loudness_K.size - 1, -1, -1):
        chosen[k] = velocity[at]
        at -= int(stepped[k, at])
    return chosen
