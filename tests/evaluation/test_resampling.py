"""Intervals over pieces: their width, coverage and edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm.evaluation.distributions import js_distance
from pianolm.evaluation.resampling import distance_estimate, halves_estimate, mean_estimate


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = mean_estimate(values)
    assert found is not None
    assert found.value == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.04)
    assert mean_estimate(values, seed=1) != found == mean_estimate(values)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    estimates = [mean_estimate(rng.normal(0, 1, 30)) for _ in range(200)]
    assert 0.87 <= np.mean([one is not None and one.low <= 0 <= one.high for one in estimates]) <= 0.99


def test_one_piece_and_none() -> None:
    assert mean_estimate(np.array([3.0])) == (3, 3, 3)
    assert mean_estimate(np.zeros(0)) is None
    one = np.array([[1, 2]])
    assert halves_estimate(one) is None
    assert distance_estimate(one, one) == (0, 0, 0)
    assert distance_estimate(one, np.zeros_like(one)) is None


def test_distances_are_those_of_the_sums_over_pieces() -> None:
    rng = np.random.default_rng(0)
    model, human = rng.multinomial(50, [0.2, 0.3, 0.5], 40), rng.multinomial(50, [0.5, 0.3, 0.2], 40)
    found = distance_estimate(model, human)
    assert found is not None
    assert found.value == pytest.approx(float(js_distance(model.sum(0), human.sum(0))))
    assert found.low < found.value < found.high
    halves = halves_estimate(human)
    assert halves is not None
    assert 0 < halves.value < found.low, "halves of one distribution are nearer than two distributions"


def test_halves_of_two_pieces_are_these_pieces() -> None:
    counts = np.array([[4, 0], [0, 0], [3, 1]])
    expected = float(js_distance(counts[0], counts[2]))
    assert halves_estimate(counts) == pytest.approx((expected,) * 3), "a piece without values is in neither"
