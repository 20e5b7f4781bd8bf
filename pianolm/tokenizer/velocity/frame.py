"""The `frame` form of the velocity codec: a VQ-VAE over the frames of a cell, applied with NumPy.

`pianolm.velvq.network_frame` trains it.

Shapes: C cells, S segments, F = 48 frames of a beat, n frames that the codec sees (48, 24, 12, …), K codes,
D latent width. In `decode`, N distinct (code, pattern) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, frame_velocity, segment_of_frame, segment_starts
from pianolm.tokenizer.velocity.codec import VelocityCodec

VELOCITY_CENTRE, VELOCITY_SCALE = 64.0, 24.0
"""Networks read (velocity − centre) / scale, which has about zero mean and unit variance over performances."""
BLOCK = 512
"""Rows that go through the networks at a time, never more or fewer; see `_in_blocks`."""

T = TypeVar("T", bound=np.generic)
Array32 = NDArray[np.float32]
Layers = list[tuple[Array32, Array32]]


def silu(x: Array32) -> Array32:
    """x · sigmoid(x), computed with tanh, which does not overflow."""
    return x * (np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5))


def relu(x: Array32) -> Array32:
    """max(x, 0)."""
    return np.maximum(x, np.float32(0))


ACTIVATIONS: dict[str, Callable[[Array32], Array32]] = {"silu": silu, "relu": relu}


def nearest_frames(n: int) -> NDArray[np.int64]:
    """[n] the frame of 48 that each of n frames is taken from: floor(48 i / n).

    Raises:
        UserError: n does not divide 48.
    """
    if n < 1 or FRAMES % n:
        divisors = [d for d in range(1, FRAMES + 1) if FRAMES % d == 0]
        raise UserError(f"velvq.frames={n}: expected a divisor of {FRAMES}, one of {divisors}")
    return np.arange(n) * FRAMES // n


def frame_sources(n: int) -> NDArray[np.int64]:
    """[48] the frame of n that each of 48 frames is read from when decoding: floor(f n / 48)."""
    return np.arange(FRAMES) * n // FRAMES


def resample(velocity_CF: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """Frame velocities [C, 48] at n frames a beat, by nearest neighbour; 0 is silent.

    A cell too short to sound in any of the frames kept would become silent. In such a cell each frame of n takes the
    first of its 48 / n frames that sounds, so that every cell has at least one active frame.
    """
    return _at_kept_frames(velocity_CF, velocity_CF > 0, n)


def _at_kept_frames(values_CF: NDArray[T], sounding_CF: NDArray[np.bool_], n: int) -> NDArray[T]:
    """Values [C, 48] at n frames a beat; see `resample`."""
    kept = nearest_frames(n)
    values_Cn = values_CF[:, kept]
    lost = np.flatnonzero(~sounding_CF[:, kept].any(axis=1))
    if lost.size:
        first = sounding_CF[lost].reshape(lost.size, n, -1).argmax(axis=2)
        values_Cn[lost] = values_CF[lost[:, None], kept + first]
    return values_Cn


def resample_onsets(sustain: NDArray[np.uint64], onset: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    """Onsets at n frames a beat: [C, n], true in the first frame that `resample` takes from a struck segment.

    A strike between two kept frames thus appears where the velocity of its segment does, and the strike of a segment
    that `resample` skips does not appear.
    """
    segment_CF = segment_of_frame(sustain, onset)
    owner_Cn = _at_kept_frames(segment_CF, segment_CF >= 0, n)
    first_Cn = owner_Cn >= 0
    first_Cn[:, 1:] &= owner_Cn[:, 1:] != owner_Cn[:, :-1]
    begins_held = (sustain & ~onset & np.uint64(1)) != 0
    return first_Cn & ~(begins_held[:, None] & (owner_Cn == 0))


def segment_velocities(
    frames_Cn: NDArray[np.floating], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """Velocities of segments from decoded frames.

    A segment takes the mean over those of its 48 frames that `resample` took from itself, rounded and clipped to
    1–127. With n < 48 a segment may have no such frame: it takes the active frame nearest to its start.

    Args:
        frames_Cn: [C, n] decoded velocities in MIDI units, before rounding.
        sustain: [C] masks.
        onset: [C] masks.

    Returns:
        [S] uint8 in cell order.
    """
    segment_CF = segment_of_frame(sustain, onset)
    source = frame_sources(frames_Cn.shape[1])
    owner_Cn = _at_kept_frames(segment_CF, segment_CF >= 0, frames_Cn.shape[1])
    counts = np.bitwise_count(segment_starts(sustain, onset)).astype(np.int64)
    first = np.cumsum(counts) - counts
    cell, frame = np.nonzero((segment_CF >= 0) & (owner_Cn[:, source] == segment_CF))
    segment = first[cell] + segment_CF[cell, frame]
    n_segments = int(counts.sum())
    total = np.bincount(segment, frames_Cn[cell, source[frame]], minlength=n_segments)
    owned = np.bincount(segment, minlength=n_segments)
    mean = total / np.maximum(owned, 1)
    orphans = np.flatnonzero(owned == 0)
    if orphans.size:
        cell = np.searchsorted(first, orphans, side="right") - 1
        start = np.argmax(segment_CF[cell] == (orphans - first[cell])[:, None], axis=1)
        distance = np.abs(nearest_frames(frames_Cn.shape[1]) - start[:, None])
        nearest = np.argmin(np.where(owner_Cn[cell] >= 0, distance, FRAMES), axis=1)
        mean[orphans] = frames_Cn[cell, nearest]
    return np.clip(np.rint(mean), 1, 127).astype(np.uint8)


def active_frames(sustain: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    """[C, n] frames that sound after `resample` in cells with these sustain masks."""
    octets = np.ascontiguousarray(sustain, "<u8").view(np.uint8).reshape(-1, 8)
    sounding_CF = np.unpackbits(octets, axis=1, count=FRAMES, bitorder="little").astype(bool)
    return _at_kept_frames(sounding_CF, sounding_CF, n)


@dataclass(frozen=True, eq=False)
class FrameCodec(VelocityCodec):
    """Encodes and decodes the velocities of cells as n frames a beat.

    Attributes:
        config: Besides `form` and `codebook_size`: `frames` (n), `activation`, `widths` (layers of each network), and
            `see_onset`, whether the networks read onsets beside activity.
        tensors: Weights by name, `<network>.<layer>.weight` [out, in] and `.bias` [out]; `codebook` [K, D].
    """

    form: ClassVar[str] = "frame"
    needed: ClassVar[frozenset[str]] = frozenset({"frames", "codebook_size", "activation", "widths"})

    config: Mapping[str, Any]
    tensors: Mapping[str, Array32]

    @property
    def frames(self) -> int:
        """Frames a beat n that the codec reads."""
        return int(self.config["frames"])

    @property
    def see_onset(self) -> bool:
        """Whether the networks read onsets."""
        return bool(self.config.get("see_onset", False))

    def encode(self, cells: Cells) -> NDArray[np.int64]:
        """[C] velocity codes of cells. The code of a cell does not depend on the other cells."""
        onset_Cn = resample_onsets(cells.sustain, cells.onset, self.frames) if self.see_onset else None
        return self.encode_frames(resample(frame_velocity(cells), self.frames), onset_Cn)

    def encode_frames(
        self, velocity_Cn: NDArray[np.uint8], onset_Cn: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Codes of resampled cells; equal rows are encoded once.

        Args:
            velocity_Cn: [C, n] from `resample`.
            onset_Cn: [C, n] from `resample_onsets`, for a codec that reads onsets.

        Returns:
            [C] codes.
        """
        assert (onset_Cn is not None) == self.see_onset, "onsets are given exactly if the codec reads them"
        rows = velocity_Cn if onset_Cn is None else np.concatenate([velocity_Cn, onset_Cn], axis=1)
        index, inverse = _distinct(rows)
        return _in_blocks(self._encode_block, rows[index])[inverse].astype(np.int64)

    def decode(
        self, codes: NDArray[np.integer], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """[S] velocities of segments; equal (code, pattern) pairs are decoded once."""
        self.check_codes(codes)
        keys = np.stack([codes.astype(np.uint64), sustain, onset], axis=1)
        index, inverse = _distinct(keys)
        code, sustain_N, onset_N = keys[index].T
        pattern = [active_frames(sustain_N, self.frames)]
        if self.see_onset:
            pattern.append(resample_onsets(sustain_N, onset_N, self.frames))
        latent_ND = self.tensors["codebook"][code.astype(np.int64)]
        frames_Nn = _in_blocks(self._decode_block, np.concatenate([latent_ND, *pattern], axis=1))
        velocity = segment_velocities(frames_Nn, sustain_N, onset_N)
        counts = np.bitwise_count(segment_starts(sustain_N, onset_N)).astype(np.int64)
        return _gather_runs(velocity, counts, inverse)

    def _encode_block(self, rows: NDArray[np.uint8]) -> NDArray[np.int64]:
        velocity_Cn, onset_Cn = rows[:, : self.frames], rows[:, self.frames :].astype(np.float32)
        mask_Cn = (velocity_Cn > 0).astype(np.float32)
        centred_Cn = (velocity_Cn - np.float32(VELOCITY_CENTRE)) / np.float32(VELOCITY_SCALE) * mask_Cn
        latent_CD = self._apply("encoder", np.concatenate([centred_Cn, mask_Cn, onset_Cn], axis=1))
        codebook_KD = self.tensors["codebook"]
        # |z|² is the same for every code: leaving it out does not change which is nearest.
        distance_CK = (codebook_KD**2).sum(axis=1) - np.float32(2) * (latent_CD @ codebook_KD.T)
        return distance_CK.argmin(axis=1)

    def _decode_block(self, latent_and_pattern: Array32) -> Array32:
        pattern = latent_and_pattern[:, self.tensors["codebook"].shape[1] :]
        hidden = self._activate(self._apply("decoder", latent_and_pattern))
        frames_Cn = self._apply("output", np.concatenate([hidden, pattern], axis=1))
        return frames_Cn * np.float32(VELOCITY_SCALE) + np.float32(VELOCITY_CENTRE)

    @property
    def _activate(self) -> Callable[[Array32], Array32]:
        return ACTIVATIONS[self.config["activation"]]

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
        """Linear layers with the activation between them, none after the last."""
        for i, (weight, bias) in enumerate(self._networks[network]):
            x = (self._activate(x) if i else x) @ weight.T + bias
        return x

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor according to config.json."""
        if self.config["activation"] not in ACTIVATIONS:
            raise UserError(
                f"velocity codec: activation {self.config['activation']!r} found, expected one of "
                f"{', '.join(ACTIVATIONS)}"
            )
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
