"""The `frame` form of the velocity codec: a VQ-VAE over the frames of a cell, applied with NumPy.

`pianolm.velvq.network_frame` trains it.

Shapes: C cells, S segments, F = 48 frames of a beat, K codes, D latent width. In `decode`, N distinct (code, pattern)
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, frame_velocity, segment_of_frame, segment_starts
from pianolm.tokenizer.velocity.codec import MOST_CODES, VelocityCodec, whole_problem

VELOCITY_CENTRE, VELOCITY_SCALE = 64.0, 24.0
"""Networks read (velocity − centre) / scale, which has about zero mean and unit variance over performances."""
BLOCK = 512
"""Rows that go through the networks at a time, never more or fewer; see `_in_blocks`."""

_NETWORKS = frozenset({"encoder", "decoder", "output"})
_WIDEST = 2**14
"""Widest layer that is read."""

Array32 = NDArray[np.float32]
Layers = list[tuple[Array32, Array32]]


def relu(x: Array32) -> Array32:
    """max(x, 0)."""
    return np.maximum(x, np.float32(0))


def segment_velocities(
    frames_CF: NDArray[np.floating], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """Velocities of segments: the mean over the decoded frames of each, rounded and clipped to 1–127.

    Args:
        frames_CF: [C, F] decoded velocities in MIDI units, before rounding.
        sustain: [C] masks.
        onset: [C] masks.

    Returns:
        [S] uint8 in cell order.
    """
    segment_CF = segment_of_frame(sustain, onset)
    counts = np.bitwise_count(segment_starts(sustain, onset)).astype(np.int64)
    first = np.cumsum(counts) - counts
    cell, frame = np.nonzero(segment_CF >= 0)
    segment = first[cell] + segment_CF[cell, frame]
    total = np.bincount(segment, frames_CF[cell, frame], minlength=int(counts.sum()))
    mean = total / np.bincount(segment, minlength=total.size)
    return np.clip(np.rint(mean), 1, 127).astype(np.uint8)


def active_frames(sustain: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """[C, F] frames that sound in cells with these sustain masks."""
    octets = np.ascontiguousarray(sustain, "<u8").view(np.uint8).reshape(-1, 8)
    return np.unpackbits(octets, axis=1, count=FRAMES, bitorder="little").astype(bool)


@dataclass(frozen=True, eq=False)
class FrameCodec(VelocityCodec):
    """Encodes and decodes the velocities of cells as the 48 frames of a beat.

    Attributes:
        config: `form`, `codebook_size` and `widths`, the layer widths of each network.
        tensors: Weights by name, `<network>.<layer>.weight` [out, in] and `.bias` [out]; `codebook` [K, D].
    """

    form: ClassVar[str] = "frame"

    config: Mapping[str, Any]
    tensors: Mapping[str, Array32]

    @classmethod
    def setting_problem(cls, config: Mapping[str, Any]) -> str:
        """See `VelocityCodec.setting_problem`."""
        widths = config.get("widths")
        if not isinstance(widths, dict) or set(widths) != _NETWORKS:
            return f"widths={widths!r} found, expected the layer widths of {', '.join(sorted(_NETWORKS))}"
        for name, sizes in widths.items():
            fits = isinstance(sizes, list) and len(sizes) > 1
            if not fits or not all(type(size) is int and 1 <= size <= _WIDEST for size in sizes):
                return f"widths of {name} {sizes!r} found, expected whole numbers from 1 to {_WIDEST}"
        encoder, decoder, output = widths["encoder"], widths["decoder"], widths["output"]
        ends = (encoder[0], decoder[0] - encoder[-1], output[0] - decoder[-1], output[-1])
        if ends != (2 * FRAMES, FRAMES, FRAMES, FRAMES):
            return f"widths={widths!r} found, whose layers do not fit each other and the {FRAMES} frames of a beat"
        return whole_problem(config, "codebook_size", MOST_CODES)

    def tensor_problem(self) -> str:
        """See `VelocityCodec.tensor_problem`."""
        for name, tensor in self.tensors.items():
            if not np.issubdtype(tensor.dtype, np.floating) or not np.isfinite(tensor).all():
                return f"tensor {name} holds values that are not finite numbers"
        return ""

    def encode(self, cells: Cells) -> NDArray[np.int64]:
        """[C] velocity codes of cells; cells with equal velocities are encoded once.

        The code of a cell does not depend on the other cells.
        """
        velocity_CF = frame_velocity(cells)
        index, inverse = _distinct(velocity_CF)
        return _in_blocks(self._encode_block, velocity_CF[index])[inverse].astype(np.int64)

    def decode(
        self, codes: NDArray[np.integer], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """[S] velocities of segments; equal (code, pattern) pairs are decoded once."""
        self.check_codes(codes)
        keys = np.stack([codes.astype(np.uint64), sustain, onset], axis=1)
        index, inverse = _distinct(keys)
        code, sustain_N, onset_N = keys[index].T
        latent_ND = self.tensors["codebook"][code.astype(np.int64)]
        inputs = np.concatenate([latent_ND, active_frames(sustain_N)], axis=1)
        velocity = segment_velocities(_in_blocks(self._decode_block, inputs), sustain_N, onset_N)
        counts = np.bitwise_count(segment_starts(sustain_N, onset_N)).astype(np.int64)
        return _gather_runs(velocity, counts, inverse)

    def _encode_block(self, velocity_CF: NDArray[np.uint8]) -> NDArray[np.int64]:
        mask_CF = (velocity_CF > 0).astype(np.float32)
        centred_CF = (velocity_CF - np.float32(VELOCITY_CENTRE)) / np.float32(VELOCITY_SCALE) * mask_CF
        latent_CD = self._apply("encoder", np.concatenate([centred_CF, mask_CF], axis=1))
        codebook_KD = self.tensors["codebook"]
        # |z|² is the same for every code: leaving it out does not change which is nearest.
        distance_CK = (codebook_KD**2).sum(axis=1) - np.float32(2) * (latent_CD @ codebook_KD.T)
        return distance_CK.argmin(axis=1)

    def _decode_block(self, latent_and_mask: Array32) -> Array32:
        mask = latent_and_mask[:, self.tensors["codebook"].shape[1] :]
        hidden = relu(self._apply("decoder", latent_and_mask))
        frames_CF = self._apply("output", np.concatenate([hidden, mask], axis=1))
        return frames_CF * np.float32(VELOCITY_SCALE) + np.float32(VELOCITY_CENTRE)

    @cached_property
    def _networks(self) -> dict[str, Layers]:
        return {
            name: [
                (self.tensors[f"{name}.{i}.weight"], self.tensors[f"{name}.{i}.bias"])
                for i in range(len(w) - 1)
            ]
            for name, w in self.config["widths"].items()
        }

    def _apply(self, network: str, x: Array32) -> Array32:
        """Linear layers with ReLU between them, none after the last."""
        for i, (weight, bias) in enumerate(self._networks[network]):
            x = (relu(x) if i else x) @ weight.T + bias
        return x

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor according to config.json."""
        widths = self.config["widths"]
        expected: dict[str, tuple[int, ...]] = {"codebook": (self.codebook_size, widths["encoder"][-1])}
        for name, sizes in widths.items():
            for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
                expected |= {f"{name}.{i}.weight": (fan_out, fan_in), f"{name}.{i}.bias": (fan_out,)}
        return expected


def _distinct(rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows of [C, W]: [N] index of one row of each, and [C] the number of each row among them."""
    packed = np.ascontiguousarray(rows)
    packed = packed.view(np.dtype((np.void, packed.itemsize * packed.shape[1]))).ravel()
    _, index, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return index, inverse


def _in_blocks(function: Callable[[Any], NDArray[Any]], rows: NDArray[Any]) -> NDArray[Any]:
    """Applies a network to rows in blocks of one size, the last one padded.

    Matrix products of different shapes add in different orders. With one shape the result of a row is the same to the
    last bit whatever the other rows are.
    """
    padded = np.zeros((max(-(-len(rows) // BLOCK), 1) * BLOCK, rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    return np.concatenate([function(part) for part in padded.reshape(-1, BLOCK, rows.shape[1])])[: len(rows)]


def _gather_runs(
    values: NDArray[np.uint8], counts: NDArray[np.int64], pick: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Concatenates runs of `values` (of lengths `counts`) in the order of `pick`, which may repeat them."""
    start, length = (np.cumsum(counts) - counts)[pick], counts[pick]
    within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    return values[np.repeat(start, length) + within]
