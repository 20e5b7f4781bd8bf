"""Two baselines of the trained codecs, measured on the same validation cells.

    python bounds.py STORE    a cell store of stage=prepare; JSON on standard output

`cell_mean` codes one velocity per cell, the mean of its frames. `kmeans` has 512 centres for each number of segments
from 2 to 6, fitted to training cells by k-means, which is where the default codec starts from.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from numpy.typing import NDArray
from transfer import measure

from pianolm.data.cell_store import CellStore
from pianolm.tokenizer.velocity.segment import VELOCITIES, SegmentCodec, segment_rows
from pianolm.velvq.cell_cache import pieces_with_dynamics
from pianolm.velvq.network_segment import number_codes

CODES, SLOTS = 512, 6
POINTS, ROUNDS, SEED = 60_000, 15, 0  # of k-means: training cells drawn, iterations


def cell_mean() -> SegmentCodec:
    """A codec of one segment and a code for every velocity: it replaces the segments of a cell by their mean."""
    return SegmentCodec.from_tables([np.arange(1, VELOCITIES + 1, dtype=np.uint8)[:, None]])


class NearestCentre(SegmentCodec):
    """Takes the code with the least squared error, all segments weighted equally, as k-means does."""

    def _distances(self, velocity: NDArray[np.int16], length: NDArray[np.int16]) -> NDArray[np.int32]:
        table = self.table(velocity.shape[1]).astype(np.int32)
        return sum((velocity[:, n, None] - table[:, n]) ** 2 for n in range(velocity.shape[1]))


def kmeans(store: CellStore) -> SegmentCodec:
    """Centres for each number of segments separately, rounded to velocities."""
    rng = np.random.default_rng(SEED)
    train = store.joined(pieces_with_dynamics(store, "train"))
    learned = {}
    for rows in segment_rows(train, SLOTS, least=2):
        drawn = rng.permutation(len(rows.velocity))[:POINTS]
        learned[rows.velocity.shape[1]] = centres(rows.velocity[drawn].astype(np.float32), rng)
    return NearestCentre.from_tables(number_codes(learned, CODES, SLOTS))


def centres(points: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """[K, n] centres of points [P, n]; a centre without points restarts at a random point."""
    found = points[rng.choice(len(points), CODES, replace=len(points) < CODES)]
    for _ in range(ROUNDS):
        nearest = np.concatenate(
            [
                ((found**2).sum(axis=1) - 2 * part @ found.T).argmin(axis=1)
                for part in np.array_split(points, 16)
            ]
        )
        count = np.bincount(nearest, minlength=CODES)
        total = np.stack([np.bincount(nearest, column, CODES) for column in points.T], axis=1)
        again = points[rng.integers(0, len(points), CODES)]
        found = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], again).astype(np.float32)
    return np.clip(np.rint(found), 1, VELOCITIES).astype(np.uint8)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    opened = CellStore.open(sys.argv[1])
    codecs = {"cell_mean": cell_mean(), "kmeans": kmeans(opened)}
    print(json.dumps({name: measure(codec, opened) for name, codec in codecs.items()}, indent=2))
