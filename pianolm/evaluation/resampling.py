"""How far figures would change with other pieces: bootstrap intervals, and distances between halves.

Shapes: P pieces, R resamples, K bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.evaluation.distributions import js_distance

RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)


class Estimate(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def _weights(pieces: int, seed: int) -> NDArray[np.int64]:
    """[R, P] how often each piece is in each resample: as many pieces, drawn with replacement."""
    draws = np.random.default_rng(seed).integers(0, pieces, (RESAMPLES, pieces))
    return (draws[:, :, None] == np.arange(pieces)).sum(1)


def _estimate(value: float, resampled_R: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(resampled_R, _PERCENTILES)
    return Estimate(value, float(low), float(high))


def mean_estimate(values_P: NDArray[np.float64], seed: int = 0) -> Estimate | None:
    """The mean over pieces with its bootstrap interval; None for no values."""
    if not values_P.size:
        return None
    resampled = _weights(values_P.size, seed) @ values_P / values_P.size
    return _estimate(float(values_P.mean()), resampled)


def distance_estimate(
    one_PK: NDArray[np.int64], other_PK: NDArray[np.int64], seed: int = 0
) -> Estimate | None:
    """Distance between the distributions of two sides of the same pieces, with its bootstrap interval over pieces.

    None where a side has no values at all.
    """
    if not one_PK.sum() or not other_PK.sum():
        return None
    weights = _weights(len(one_PK), seed)
    one, other = weights @ one_PK, weights @ other_PK
    both = (one.sum(1) > 0) & (other.sum(1) > 0)
    distance = js_distance(one_PK.sum(0), other_PK.sum(0))
    return _estimate(float(distance), js_distance(one[both], other[both]))


def halves_estimate(counts_PK: NDArray[np.int64], seed: int = 0) -> Estimate | None:
    """Distance between two random halves of the pieces: the mean over many divisions, and where 95 % of them lie.

    None where a half would have no values.
    """
    counts = counts_PK[counts_PK.sum(1) > 0]
    if len(counts) < 2:
        return None
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(counts)), (RESAMPLES, 1)), axis=1)
    half = (order < len(counts) // 2).astype(np.int64)
    distances = js_distance(half @ counts, (1 - half) @ counts)
    return _estimate(float(distances.mean()), distances)
