"""Reads the CSV files that training writes into its run directory.

A run directory has `<stage>/csv/metrics.csv`. Training that was interrupted and resumed adds `csv_2`, `csv_3` ….

Shapes: n rows in which a column has a value.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Series = tuple[NDArray[np.int64], NDArray[np.float64]]
"""[n] optimizer steps done, [n] values."""


@dataclass
class Curves:
    """Logged metrics of one trained stage of a run.

    Attributes:
        columns: Values by metric name, in order of steps; infinite values are NaN.
        resumed_at: Steps at which training was resumed.
    """

    columns: dict[str, Series] = field(default_factory=dict)
    resumed_at: list[int] = field(default_factory=list)

    def last(self, name: str) -> float | None:
        """The last value of a column, None if it is missing."""
        return float(self.columns[name][1][-1]) if name in self.columns else None


def find_runs(directory: Path) -> dict[Path, dict[str, list[Path]]]:
    """The training runs at or below a directory.

    Returns:
        The CSV files by run directory and stage, in the order they were written.
    """
    runs: dict[Path, dict[str, list[Path]]] = {}
    for path in sorted(directory.rglob("csv*/metrics.csv"), key=lambda p: (p.parents[2], _part_number(p))):
        runs.setdefault(path.parents[2], {}).setdefault(path.parents[1].name, []).append(path)
    return runs


def _part_number(path: Path) -> int:
    """1, 2, 3 … for `csv`, `csv_2`, `csv_3` …"""
    number = path.parent.name.removeprefix("csv").lstrip("_")
    return int(number) if number.isdecimal() else 1


def read_curves(parts: Sequence[Path]) -> Curves:
    """Joins the CSV files of one training run. Where two have the same step, the later file counts.

    Args:
        parts: Files in the order they were written. Rows without a step and fields that are no number, such as the
            end of a file that is being written, are skipped.
    """
    curves = Curves()
    for path in parts:
        columns = _read_columns(path)
        if not columns:
            continue
        first = min(int(step_n[0]) for step_n, _ in columns.values())
        if curves.columns:
            curves.resumed_at.append(first - 1)
        for name in curves.columns.keys() | columns.keys():
            old_step, old_value = curves.columns.get(name, (np.zeros(0, np.int64), np.zeros(0)))
            step, value = columns.get(name, (np.zeros(0, np.int64), np.zeros(0)))
            before = old_step < first
            joined = np.concatenate([old_step[before], step]), np.concatenate([old_value[before], value])
            curves.columns[name] = joined
    curves.columns = {name: series for name, series in sorted(curves.columns.items()) if series[0].size}
    return curves


def _read_columns(path: Path) -> dict[str, Series]:
    columns: dict[str, dict[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.pop("step", None))
            if step is None:
                continue
            for name, text in row.items():
                if (value := _number(text)) is not None:
                    # Steps are logged from 0: the row of step 9 was written after ten steps.
                    columns.setdefault(name, {})[int(step) + 1] = value if math.isfinite(value) else math.nan
    return {
        name: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for name, values in columns.items()
    }


def _number(text: object) -> float | None:
    try:
        return float(text) if isinstance(text, str) else None
    except ValueError:
        return None


def unigram_bits_per_note(curves: Curves) -> float | None:
    """Bits per note of a model that knows only the frequencies of tokens.

    The unigram entropy is logged in nats per token. It can be converted if bits per note are proportional to the loss,
    which holds if all validation targets belong to performances. None otherwise.
    """
    entropy = curves.last("val/unigram_entropy")
    loss, bits = curves.columns.get("val/loss"), curves.columns.get("val/bits_per_note")
    if entropy is None or loss is None or bits is None or not np.array_equal(loss[0], bits[0]):
        return None
    ratio_n = bits[1] / loss[1]
    proportional = np.ptp(ratio_n) <= 1e-4 * ratio_n.mean()
    return float(entropy * ratio_n.mean()) if proportional and ratio_n.size > 1 else None
