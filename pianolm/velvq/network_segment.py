"""The default form of the velocity codec's networks: one codebook a number of segments, under common code numbers.

Cells of n segments are points in n dimensions. For each n a quantizer learns K codes among them (moving averages,
k-means to begin with), and a learned offset moves each decoded code to where the measured error is least. A cell takes
the code whose decoded velocities lie nearest, each segment weighed by the frames it lasts. When the codec is exported,
codes are numbered from soft to loud for every n, so that a number means about the same loudness everywhere.

Shapes: B cells of a batch, n segments, K codes, N most segments told apart (`slots`).
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

from pianolm.errors import UserError
from pianolm.tokenizer.velocity.segment import (
    DISTANCES,
    VELOCITIES,
    WEIGHTINGS,
    SegmentCodec,
    check_choice,
    segment_least,
)
from pianolm.velvq.module import Share, VelVQNetwork, VelVQSettings


@dataclass(frozen=True)
class SegmentSettings(VelVQSettings):
    """The part of `velvq=segment` that determines the codec and its training.

    Attributes:
        slots: N, the most segments that a code tells apart.
        distance: absolute or squared error, to be minimised in training and in encoding.
        weighting: frames (a segment weighs as many frames as it lasts) or equal.
    """

    slots: int
    distance: str
    weighting: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("slots")
        if self.slots < segment_least(self.codebook_size):
            raise UserError(
                f"velvq.slots={self.slots} with velvq.codebook_size={self.codebook_size} leaves nothing to learn: "
                f"every velocity has a code; give velvq.slots of at least 2, or fewer than {VELOCITIES} codes"
            )
        check_choice("velvq.distance", self.distance, DISTANCES)
        check_choice("velvq.weighting", self.weighting, WEIGHTINGS)

    def network(self, distributed: bool) -> SegmentVelVQ:
        """The quantizers."""
        return SegmentVelVQ(self, distributed)


class SegmentVelVQ(VelVQNetwork):
    """Quantizers and decoder offsets for each number of segments.

    Args:
        settings: Sizes.
        distributed: Whether the codes' averages are summed over processes; a process group must exist then.
    """

    def __init__(self, settings: SegmentSettings, distributed: bool = False) -> None:
        super().__init__()
        self.settings = settings
        learned = range(segment_least(settings.codebook_size), settings.slots + 1)
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
                    sync_codebook=distributed,
                )
                for n in learned
            }
        )
        self.offsets = nn.ParameterDict(
            {str(n): nn.Parameter(torch.zeros(settings.codebook_size, n)) for n in learned}
        )

    def learned(self) -> Iterator[tuple[str, VectorQuantize]]:
        """Numbers of segments and their quantizers."""
        yield from self.quantizers.items()

    def training_losses(self, batch: Mapping[str, Tensor], share: Share) -> dict[str, Tensor]:
        """Mean error a frame, averaged over the numbers of segments; one step of the moving averages.

        A batch holds `velocity_n` and `length_n` [B, n] uint8 for every n that occurs in the data.
        """
        losses = {}
        # DDP waits for a gradient of every parameter, also of those whose cells do not occur.
        nothing = torch.stack([0 * offset.sum() for offset in self.offsets.values()]).sum()
        for n, quantizer in self.learned():
            if f"velocity_{n}" not in batch:
                continue
            velocity_Bn, length_Bn = batch[f"velocity_{n}"].float(), batch[f"length_{n}"].float()
            if self.settings.weighting == "equal":
                length_Bn = torch.ones_like(length_Bn)
            if not has_begun(quantizer):
                quantizer(velocity_Bn[:, None])  # k-means
            decoded_Kn = quantizer.codebook + self.offsets[n]
            code_B = self._nearest(velocity_Bn, length_Bn, decoded_Kn.detach())
            error_Bn = self._error(velocity_Bn - nn.functional.embedding(code_B, decoded_Kn)) * length_Bn
            losses[f"reconstruction_{n}"] = error_Bn.sum() * share(length_Bn.sum())
            quantizer.update_indices(velocity_Bn[:, None], code_B[:, None])
        mean = torch.stack(list(losses.values())).mean() if losses else nothing
        return {"loss": mean + nothing, **losses}

    def _error(self, difference: Tensor) -> Tensor:
        return difference.square() if self.settings.distance == "squared" else difference.abs()

    @torch.no_grad()
    def _nearest(self, velocity_Bn: Tensor, length_Bn: Tensor, decoded_Kn: Tensor) -> Tensor:
        """[B] code with the least error."""
        slots = zip(velocity_Bn.T, length_Bn.T, decoded_Kn.T, strict=True)
        errors_BK = (self._error(v[:, None] - c) * w[:, None] for v, w, c in slots)
        return functools.reduce(torch.Tensor.add_, errors_BK).argmin(dim=1)

    def codec(self) -> SegmentCodec:
        """The codec in NumPy, its velocities rounded."""
        s = self.settings
        learned = {}
        for n, quantizer in self.learned():
            if has_begun(quantizer):
                decoded_Kn = (quantizer.codebook + self.offsets[n]).detach().float().cpu().numpy()
                learned[int(n)] = np.clip(np.rint(decoded_Kn), 1, VELOCITIES).astype(np.uint8)
        return SegmentCodec.from_tables(
            number_codes(learned, s.codebook_size, s.slots), s.distance, s.weighting
        )


def has_begun(quantizer: VectorQuantize) -> bool:
    """Whether k-means has given a quantizer its codes."""
    return bool(quantizer._codebook.initted)


def number_codes(
    learned: Mapping[int, NDArray[np.uint8]], codebook_size: int, slots: int
) -> list[NDArray[np.uint8]]:
    """[K, 1], [K, 2], … velocities of codes numbered from soft to loud.

    Args:
        learned: [K, n] by n, in any order; where an n is lacking, all segments of a code are equally loud.
        codebook_size: K.
        slots: The highest n.
    """
    ordered = {n: table[np.lexsort((*table.T[::-1], table.sum(axis=1)))] for n, table in learned.items()}
    loudness = ordered[2].mean(axis=1) if 2 in ordered else np.linspace(1, VELOCITIES, codebook_size)
    one = (
        ordered[1] if 1 in ordered else staircase(loudness)[:, None] if codebook_size >= VELOCITIES else None
    )
    if one is None:
        one = np.rint(loudness)[:, None].astype(np.uint8)
    return [one, *(ordered.get(n, np.repeat(one, n, axis=1)) for n in range(2, slots + 1))]


def staircase(loudness_K: NDArray[np.floating]) -> NDArray[np.uint8]:
    """[K] velocities 1 … 127, each at least once, ascending, and as near to a loudness [K] as that allows.

    K ≥ 127. Dynamic programming over codes and velocities: a code takes its predecessor's velocity or the next.
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
