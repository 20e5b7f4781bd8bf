"""The picture of badly decoded cells: which cells it shows."""

from __future__ import annotations

import numpy as np

from pianolm.report.velvq_cells import WORST, typical_cells, worst_cells
from tests.report.test_velvq import random_cells, taken


def test_the_worst_cells_are_drawn_once_each() -> None:
    cells = random_cells()
    twice = np.repeat(np.arange(len(cells)), 2)
    error = np.linspace(0, 1, len(cells))[twice]
    worst = worst_cells(lambda index: taken(cells, twice[index]), error)
    n = len(cells)
    assert twice[worst].tolist() == list(range(n - 1, n - 1 - WORST, -1))


def test_typical_cells_lie_at_percentiles_of_the_error() -> None:
    error = np.random.default_rng(0).permutation(1001) / 10
    chosen, marks = typical_cells(np.arange(1001), error)
    assert error[chosen].tolist() == [5, 25, 50, 75, 95, 99]
    assert marks[1:3] == ["25th pct.", "median"]
    chosen, marks = typical_cells(np.array([7, 3]), error)
    assert sorted(chosen.tolist()) == [3, 7]
    assert len(marks) == 2
