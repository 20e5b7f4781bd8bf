"""Random choices that are the same with every NumPy version.

NumPy guarantees the raw stream of a bit generator, but not what `Generator` makes of it. Draws are therefore computed
from the raw 64-bit words, with additions and multiplications only.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class RandomStream:
    """Random choices determined by a tuple of non-negative integers."""

    def __init__(self, *entropy: int) -> None:
        if any(number < 0 for number in entropy):
            raise ValueError(
                f"seed and index must not be negative, found {entropy}; use whole numbers from 0"
            )
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def uniform(self, size: int) -> NDArray[np.float64]:
        """[size] numbers in [0, 1)."""
        raw = np.atleast_1d(self._bits.random_raw(size))
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, size: int) -> NDArray[np.float64]:
        """[size] roughly normal numbers (mean 0, deviation 1, never beyond ±3.5)."""
        return (self.uniform(4 * size).reshape(size, 4).sum(axis=1) - 2.0) * np.sqrt(3.0)

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self.uniform(1)[0])

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return float(self.uniform(1)[0]) < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options, all equally likely unless weights are given."""
        weights = weights or [1.0] * len(options)
        point = self.between(0.0, sum(weights))
        for option, weight in zip(options, weights, strict=True):
            point -= weight
            if point < 0.0:
                return option
        return options[-1]
