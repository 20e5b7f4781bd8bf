"""The `segment` form of the velocity codec, the default: a vector quantizer over the segments of a cell.

There is no encoder network. A code holds one velocity for cells of one segment, two for cells of two, and so on up to
`max_segments`; the cell's pattern, which the decoder knows anyway, decides which of these lists counts. The encoder
takes the code whose list lies nearest to the played velocities, each segment weighted by its length in frames, and so
minimises the error that is measured. All of it is integer arithmetic: codes do not depend on batches, order or threads.

`pianolm.velvq.network_segment` trains it.

Shapes: C cells, S segments, K codes, n segments of a cell, R cells with n segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, segment_lengths, segment_starts
from pianolm.tokenizer.velocity.codec import MOST_CODES, VelocityCodec, whole_problem

VELOCITIES = 127
_BLOCK = 128
"""Distinct cells compared with all codes at a time, few enough for the processor's cache."""


def segment_least(codebook_size: int) -> int:
    """Fewest segments for which velocities are learned: with a code for every velocity, one segment needs none."""
    return 1 if codebook_size < VELOCITIES else 2


class SegmentRows(NamedTuple):
    """Cells of one number of segments.

    Attributes:
        cell: [R] their indices.
        velocity: [R, n] int16, MIDI velocities.
        length: [R, n] int16, frames.
    """

    cell: NDArray[np.int64]
    velocity: NDArray[np.int16]
    length: NDArray[np.int16]


def segment_rows(cells: Cells, max_segments: int, least: int = 1) -> Iterator[SegmentRows]:
    """Cells grouped by their number of segments n = `least` … `max_segments`, without empty groups.

    A cell of more than `max_segments` segments is cut into that many runs of neighbouring segments; a run has the mean
    velocity of its frames.
    """
    count = cells.segment_count
    many = np.flatnonzero(count >= least)
    count = count[many]
    first = np.cumsum(count) - count
    within = np.arange(int(count.sum())) - np.repeat(first, count)
    velocity = cells.segment_velocity[np.repeat(cells.segment_offset[many], count) + within]
    length = segment_lengths(cells.sustain[many], cells.onset[many])
    for n in range(least, max_segments + 1):
        rows = np.flatnonzero(count == n if n < max_segments else count >= n)
        if not rows.size:
            continue
        if n == max_segments and (count[rows] > n).any():
            yield SegmentRows(many[rows], *_pooled(rows, count, first, velocity, length, n))
        else:
            at = first[rows, None] + np.arange(n)
            yield SegmentRows(many[rows], velocity[at].astype(np.int16), length[at].astype(np.int16))


def _pooled(
    rows: NDArray[np.int64],
    count: NDArray[np.int64],
    first: NDArray[np.int64],
    velocity: NDArray[np.uint8],
    length: NDArray[np.int64],
    n: int,
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """[R, n] mean velocity and length of n runs of each cell's segments."""
    n_segments = count[rows]
    within = np.arange(int(n_segments.sum())) - np.repeat(np.cumsum(n_segments) - n_segments, n_segments)
    segment = np.repeat(first[rows], n_segments) + within
    run = np.repeat(np.arange(rows.size) * n, n_segments)
    run += _place_in_code(within, np.repeat(n_segments, n_segments), n)
    frames = np.bincount(run, length[segment], minlength=rows.size * n).astype(np.int64)
    total = np.bincount(run, length[segment] * velocity[segment].astype(np.int64), minlength=rows.size * n)
    mean = (2 * total.astype(np.int64) + frames) // (2 * frames)
    return mean.reshape(-1, n).astype(np.int16), frames.reshape(-1, n).astype(np.int16)


def _place_in_code(
    within: NDArray[np.int64], count: NDArray[np.int64], max_segments: int
) -> NDArray[np.int64]:
    """[S] index in a code's list of the velocity of each segment, from its index in a cell of `count` segments."""
    return np.where(count > max_segments, within * max_segments // count, within)


@dataclass(frozen=True, eq=False)
class SegmentCodec(VelocityCodec):
    """Encodes and decodes the velocities of a cell's segments.

    Attributes:
        config: `form`, `codebook_size` (K) and `max_segments` (N).
        tensors: `velocity_1` [K, 1] … `velocity_N` [K, N], uint8, 1–127: velocities of each code in cells of 1 … N
            segments.
    """

    form: ClassVar[str] = "segment"

    @classmethod
    def from_tables(cls, tables: list[NDArray[np.uint8]]) -> SegmentCodec:
        """The codec with velocities [K, 1], [K, 2], …, [K, N] for cells of 1 … N segments."""
        config = {"form": cls.form, "codebook_size": len(tables[0]), "max_segments": len(tables)}
        return cls(config, {f"velocity_{n}": table for n, table in enumerate(tables, 1)})

    @classmethod
    def setting_problem(cls, config: Mapping[str, Any]) -> str:
        """See `VelocityCodec.setting_problem`."""
        codes = whole_problem(config, "codebook_size", MOST_CODES)
        return codes or whole_problem(config, "max_segments", FRAMES)

    def tensor_problem(self) -> str:
        """See `VelocityCodec.tensor_problem`."""
        for name, table in self.tensors.items():
            if table.dtype != np.uint8 or table.min() < 1 or table.max() > VELOCITIES:
                return f"tensor {name} holds other values than velocities from 1 to {VELOCITIES}"
        return ""

    @property
    def max_segments(self) -> int:
        """Longest list N of a code; cells of more segments are cut into N runs."""
        return int(self.config["max_segments"])

    def table(self, n: int) -> NDArray[np.uint8]:
        """[K, n] velocities of every code in cells of n segments, n up to `max_segments`."""
        return self.tensors[f"velocity_{n}"]

    def encode(self, cells: Cells) -> NDArray[np.int64]:
        """[C] velocity codes of cells; cells with equal velocities and lengths are compared once."""
        codes = np.empty(len(cells), np.int64)
        one = np.flatnonzero(cells.segment_count == 1)
        codes[one] = self._code_of_one[cells.segment_velocity[cells.segment_offset[one]]]
        for rows in segment_rows(cells, self.max_segments, least=min(2, self.max_segments)):
            alone = rows.velocity.shape[1] == 1
            nearest = self._code_of_one[rows.velocity[:, 0]] if alone else self.nearest(*rows[1:])
            codes[rows.cell] = nearest
        return codes

    def nearest(self, velocity: NDArray[np.int16], length: NDArray[np.int16]) -> NDArray[np.int64]:
        """[R] code nearest to velocities [R, n] of segments of lengths [R, n] in frames; of equals, the first."""
        both = np.concatenate([velocity, length], axis=1).astype(np.uint8)
        if both.shape[1] <= 8:  # one uint64 sorts faster than bytes
            both = np.pad(both, ((0, 0), (0, 8 - both.shape[1])))
        key = both.view(np.uint64 if both.shape[1] == 8 else np.dtype((np.void, both.shape[1]))).ravel()
        _, index, inverse = np.unique(key, return_index=True, return_inverse=True)
        codes = np.empty(index.size, np.int64)
        for low in range(0, index.size, _BLOCK):
            part = index[low : low + _BLOCK]
            codes[low : low + _BLOCK] = self._distances(velocity[part], length[part]).argmin(axis=1)
        return codes[inverse]

    def _distances(self, velocity: NDArray[np.int16], length: NDArray[np.int16]) -> NDArray[np.int16]:
        """[R, K] absolute error of every code, summed over frames: at most 48 frames times 126 units of velocity."""
        total = np.zeros((len(velocity), self.codebook_size), np.int16)
        error = np.empty_like(total)
        for segment, decoded_K in enumerate(self.table(velocity.shape[1]).T.astype(np.int16)):
            np.subtract(velocity[:, segment, None], decoded_K, out=error)
            np.abs(error, out=error)
            error *= length[:, segment, None]
            total += error
        return total

    @cached_property
    def _code_of_one(self) -> NDArray[np.int64]:
        """[128] code of each velocity in a cell of one segment: the middle one of the codes nearest to it."""
        table = self.table(1)[:, 0].astype(np.int64)
        distance = np.abs(np.arange(128)[:, None] - table)
        best = distance == distance.min(axis=1, keepdims=True)
        middle = (best.cumsum(axis=1) - 1) == ((best.sum(axis=1) - 1) // 2)[:, None]
        return (best & middle).argmax(axis=1)

    def decode(
        self, codes: NDArray[np.integer], sustain: NDArray[np.uint64], onset: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        """[S] segment velocities of cells with any codes [C] and masks [C] as in `Cells`."""
        self.check_codes(codes)
        count = np.bitwise_count(segment_starts(sustain, onset)).astype(np.int64)
        n = np.minimum(count, self.max_segments)
        start = self._offset[n] + codes * n
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        return self._flat[
            np.repeat(start, count) + _place_in_code(within, np.repeat(count, count), self.max_segments)
        ]

    @cached_property
    def _flat(self) -> NDArray[np.uint8]:
        return np.concatenate([self.table(n).ravel() for n in range(1, self.max_segments + 1)])

    @cached_property
    def _offset(self) -> NDArray[np.int64]:
        """[N + 1] where the table of n segments begins in `_flat`."""
        return self.codebook_size * np.array([n * (n - 1) // 2 for n in range(self.max_segments + 1)])

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor according to config.json."""
        return {f"velocity_{n}": (self.codebook_size, n) for n in range(1, self.max_segments + 1)}
