"""Curves of training runs: what is read from their directories, and pictures of it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pianolm.report.curves import _draw_training, save_curves
from pianolm.report.training_log import find_runs, read_curves, unigram_bits_per_note


def write_rows(run: Path, stage: str, rows: list[dict[str, Any]], part: str = "csv") -> Path:
    path = run / stage / part / "metrics.csv"
    path.parent.mkdir(parents=True)
    names = sorted({name for row in rows for name in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(steps: range, shift: float = 0.0, every: int = 5) -> list[dict[str, Any]]:
    """As a language model logs them: a row after each ten steps, validation in between."""
    found: list[dict[str, Any]] = []
    for step in steps:
        loss = 8 - step / 100 + shift
        done = {"step": step, "train/loss": loss, "train/loss_pitch": loss - 1, "learning_rate": 1e-3}
        done |= {"gradient_norm": 2.0, "tokens_seen": 1000.0 * (step + 1), "train/tokens_per_second": 5e3}
        found.append(done)
        if (step + 1) % every == 0:
            metrics = {"val/loss": loss + 0.1, "val/loss_pitch": loss, "val/unigram_entropy": 6.0}
            found.append({"step": step, **metrics, "val/bits_per_note": 3 * (loss + 0.1)})
    return found


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        extrema = picture.convert("L").getextrema()
        assert extrema == (0, 255), "something is drawn"
        return picture.size


def test_the_parts_of_a_resumed_run_are_joined_in_order_of_step(tmp_path: Path) -> None:
    for part, steps in [("csv", range(30)), ("csv_2", range(20, 40)), ("csv_10", range(40, 50))]:
        write_rows(tmp_path, "base", rows(steps, shift=10 * (part == "csv_2")), part)
    parts = find_runs(tmp_path)[tmp_path]["base"]
    assert [path.parent.name for path in parts] == ["csv", "csv_2", "csv_10"]
    curves = read_curves(parts)
    steps, loss = curves.columns["train/loss"]
    assert np.array_equal(steps, np.arange(1, 51)), "counted as steps done"
    assert curves.resumed_at == [20, 40]
    assert np.array_equal(loss > 10, (steps > 20) & (steps <= 40)), (
        "the later part counts where both have a step"
    )
    assert np.array_equal(curves.columns["val/loss"][0], np.arange(5, 51, 5))
    save_curves({"run": curves}, tmp_path / "joined.png", "base")
    size(tmp_path / "joined.png")


def test_truncated_rows_and_infinite_values_are_skipped(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path,
        "base",
        [{"step": 0, "train/loss": "nan"}, {"step": 1, "train/loss": 3.0, "val/loss": "inf"}],
    )
    with path.open("a") as file:
        file.write("2")
    curves = read_curves([path])
    steps, loss = curves.columns["train/loss"]
    assert np.array_equal(steps, [1, 2])
    assert np.array_equal(loss, [np.nan, 3.0], equal_nan=True)
    save_curves({"run": curves}, tmp_path / "out.png", "base")
    size(tmp_path / "out.png")


def test_the_unigram_entropy_in_bits_per_note_only_where_it_is_known(tmp_path: Path) -> None:
    curves = read_curves([write_rows(tmp_path, "base", rows(range(20)))])
    assert unigram_bits_per_note(curves) == pytest.approx(18.0)
    curves.columns["val/bits_per_note"][1][-1] *= 1.1  # some targets are not of performances
    assert unigram_bits_per_note(curves) is None
    assert unigram_bits_per_note(read_curves([])) is None


def test_many_rows_are_smoothed() -> None:
    noise_n = np.random.default_rng(0).normal(size=1000)
    axes = Figure().subplots()
    _draw_training(axes, (np.arange(1000), noise_n), "black", pale=False)
    rows_line, mean_line = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert np.array_equal(rows_line, noise_n), "the rows are drawn too"
    assert mean_line.std() < 0.3 * noise_n.std()
    few = Figure().subplots()
    _draw_training(few, (np.arange(20), noise_n[:20]), "black", pale=False)
    assert len(few.lines) == 1, "few rows are drawn as they are"
