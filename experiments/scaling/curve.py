"""The curve of bits a note over model size and tokens, fitted to measured points, and the best size for a time.

Bits a note of a model of N parameters after D tokens are E + A·(N / 10⁶)^−a + B·(D / 10⁶)^−b, the form of Hoffmann et
al., "Training Compute-Optimal Large Language Models", 2022, section 3.3. Times are CPU seconds of one core.

Shapes: P points, S sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

Floats = NDArray[np.float64]

MILLION = 1e6
SIZE_EXPONENT, TOKEN_EXPONENT = 0.34, 0.28
"""Exponents of Hoffmann et al., for what too few points do not tell."""
TOLD_FROM = 3
"""Different sizes, or numbers of tokens, that tell an exponent; two tell a factor alone."""
EXPONENTS = (0.05, 2.0)
"""Bounds of the exponents. Below, a term is a straight line of log N or log D, which has no floor."""
STARTS = (0.1, 0.5)
"""Exponents that the search starts from."""
PRECISE: dict[str, Any] = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12, "max_nfev": 1000}
"""When the search ends."""
LARGE_ERROR = 0.1
"""Bits a note from which on an error counts less than its square."""
SEARCHED = 10
"""Factor beyond the smallest and the largest size that is measured, up to which the best size is looked for."""
GRID = 4001
"""Sizes that are tried: of neighbours one is 0.2 % larger."""


class Point(NamedTuple):
    """One training.

    Attributes:
        parameters: N.
        tokens: D.
        bits: Bits a note.
    """

    parameters: float
    tokens: float
    bits: float


class Curve(NamedTuple):
    """Bits a note over parameters and tokens; both terms are those of a million.

    Attributes:
        floor: E.
        size_factor: A.
        size_exponent: a.
        token_factor: B.
        token_exponent: b.
    """

    floor: float
    size_factor: float
    size_exponent: float
    token_factor: float
    token_exponent: float

    def bits(self, parameters: Any, tokens: Any) -> Any:
        """Bits a note; of numbers or of arrays."""
        of_size = self.size_factor * (parameters / MILLION) ** -self.size_exponent
        return self.floor + of_size + self.token_factor * (tokens / MILLION) ** -self.token_exponent


def counts(points: Sequence[Point]) -> tuple[int, int]:
    """How many different sizes and different numbers of tokens there are."""
    return len({point.parameters for point in points}), len({point.tokens for point in points})


def is_fittable(points: Sequence[Point]) -> bool:
    """Whether there are several sizes and several numbers of tokens."""
    return min(counts(points)) > 1


def fit(points: Sequence[Point]) -> Curve:
    """The curve of the least errors, of which large ones count less than their squares.

    An exponent that the points do not tell is that of Hoffmann et al.

    Args:
        points: Such as `is_fittable` accepts.
    """
    assert is_fittable(points), "several sizes and several numbers of tokens"
    sizes, amounts = counts(points)
    size_starts = STARTS if sizes >= TOLD_FROM else (SIZE_EXPONENT,)
    token_starts = STARTS if amounts >= TOLD_FROM else (TOKEN_EXPONENT,)
    starts = [(size, tokens) for size in size_starts for tokens in token_starts]
    found = [_fit_from(points, start, sizes >= TOLD_FROM, amounts >= TOLD_FROM) for start in starts]
    return min(found, key=lambda fitted: fitted[0])[1]


def _fit_from(
    points: Sequence[Point], exponents: tuple[float, float], size_told: bool, tokens_told: bool
) -> tuple[float, Curve]:
    """The cost and the curve of a search from two exponents; one that is not told stays as it is."""
    parameters_P, tokens_P, bits_P = np.array(points, np.float64).T
    told = np.array([True, True, size_told, True, tokens_told])
    of_size_P, of_tokens_P = (parameters_P / MILLION) ** -exponents[0], (tokens_P / MILLION) ** -exponents[1]
    factors = nnls(np.stack([np.ones_like(bits_P), of_size_P, of_tokens_P], axis=1), bits_P)[0]
    values = np.array([factors[0], factors[1], exponents[0], factors[2], exponents[1]])
    low = np.array([0, 0, EXPONENTS[0], 0, EXPONENTS[0]])
    high = np.array([np.inf, np.inf, EXPONENTS[1], np.inf, EXPONENTS[1]])

    def curve(some: Floats) -> Curve:
        values[told] = some
        return Curve(*map(float, values))

    solution = least_squares(
        lambda some: curve(some).bits(parameters_P, tokens_P) - bits_P,
        np.maximum(values, 1e-6)[told],  # inside the bounds
        bounds=(low[told], high[told]),
        loss="soft_l1",
        f_scale=LARGE_ERROR,
        x_scale="jac",
        **PRECISE,
    )
    return float(solution.cost), curve(solution.x)


def root_mean_square(errors: Iterable[float]) -> float:
    """Root of the mean of the squares."""
    return float(np.sqrt(np.mean(np.square(list(errors)))))


def errors_of_left_out(points: Sequence[Point]) -> list[float]:
    """Bits a note that the curve of all other points gives to a point, less those measured.

    Points without which no curve can be fitted are skipped.
    """
    errors = []
    for at, point in enumerate(points):
        others = [*points[:at], *points[at + 1 :]]
        if is_fittable(others):
            errors.append(float(fit(others).bits(point.parameters, point.tokens)) - point.bits)
    return errors


class Speed(NamedTuple):
    """Throughput of one core over sizes: straight lines between the logarithms of both, beyond as at the ends.

    Attributes:
        parameters: [S] sizes in ascending order, two at least.
        tokens_per_second: [S] tokens a second.
    """

    parameters: Floats
    tokens_per_second: Floats

    def at(self, parameters: Floats) -> Floats:
        """Tokens a second of models of other sizes."""
        known, speeds = np.log(self.parameters), np.log(self.tokens_per_second)
        wanted = np.log(parameters)
        part = np.clip(np.searchsorted(known, wanted) - 1, 0, known.size - 2)
        slope = np.diff(speeds) / np.diff(known)
        return np.asarray(np.exp(speeds[part] + slope[part] * (wanted - known[part])))


class Best(NamedTuple):
    """The size of the fewest bits a note for a time.

    Attributes:
        parameters: The size.
        tokens: Tokens that it is trained on in that time.
        counted: Those of them that count.
        bits: Bits a note by the curve.
        at_edge: Whether it is the smallest or the largest of the sizes that were tried.
    """

    parameters: float
    tokens: float
    counted: float
    bits: float
    at_edge: bool


def best_size(curve: Curve, speed: Speed, core_seconds: float, counted_tokens: float = math.inf) -> Best:
    """The size of the fewest bits a note by a curve.

    Args:
        curve: The curve.
        speed: Throughput of one core.
        core_seconds: Seconds of all cores together.
        counted_tokens: Tokens beyond which more of them bring nothing.
    """
    smallest, largest = speed.parameters[0] / SEARCHED, speed.parameters[-1] * SEARCHED
    sizes = np.geomspace(smallest, largest, GRID)
    tokens = core_seconds * speed.at(sizes)
    counted = np.minimum(tokens, counted_tokens)
    bits = curve.bits(sizes, counted)
    best = int(np.argmin(bits))
    parameters, seen, told, fewest = (float(values[best]) for values in (sizes, tokens, counted, bits))
    return Best(parameters, seen, told, fewest, best in (0, GRID - 1))
