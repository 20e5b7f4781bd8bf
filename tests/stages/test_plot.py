"""Curves of runs: what is read from their directories, and that a picture comes of it whatever they hold."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pianolm.errors import UserError
from pianolm.report.curves import _draw_training, find_runs, read_curves, save_curves, unigram_bits_per_note
from pianolm.run import execute
from pianolm.stage import StageContext
from pianolm.stages import plot
from tests.tiny import composed


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


def context(folder: Path, run: Any, out: str = "curves") -> StageContext:
    folder.mkdir(parents=True, exist_ok=True)
    return StageContext({"plot": {"run": run, "out": out}}, {}, folder, folder, folder, "plot")


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        extrema = picture.convert("L").getextrema()
        assert extrema == (0, 255), "something is drawn"
        return picture.size


def test_a_picture_a_trained_stage_whatever_it_logged(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_rows(run, "base", rows(range(40)))
    write_rows(run, "velvq", [{"step": s, "train/loss": 0.1, "val/velocity_mae": 1.0} for s in range(3)])
    assert plot.run(context(tmp_path / "out", str(run), "drawn")) == {"pictures": 2, "runs": 1}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"drawn_base.png", "drawn_velvq.png"}
    assert size(tmp_path / "out" / "drawn_base.png")[0] > 1000


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


def test_what_is_broken_off_or_not_finite_is_passed_over(tmp_path: Path) -> None:
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


def test_many_rows_are_smoothed() -> None:
    noise_n = np.random.default_rng(0).normal(size=1000)
    axes = Figure().subplots()
    _draw_training(axes, (np.arange(1000), noise_n), "black", pale=False)
    rows_line, mean_line = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert np.array_equal(rows_line, noise_n), "the rows themselves stay in sight"
    assert mean_line.std() < 0.3 * noise_n.std()
    few = Figure().subplots()
    _draw_training(few, (np.arange(20), noise_n[:20]), "black", pale=False)
    assert len(few.lines) == 1, "few rows are drawn as they are"


def test_runs_are_compared_by_list_pattern_and_directory_above(tmp_path: Path) -> None:
    for job, rate in enumerate(("0.1", "0.2")):
        write_rows(tmp_path / "sweep" / str(job), "base", rows(range(20), shift=job))
        hydra = tmp_path / "sweep" / str(job) / ".hydra"
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text(f"- stage=base\n- base.learning_rate={rate}\n")
    first, second = (tmp_path / "sweep" / str(job) for job in range(2))
    for wanted in ([str(first), str(second)], f"{tmp_path}/sweep/*", str(tmp_path / "sweep")):
        out = tmp_path / "out"
        assert plot.run(context(out, wanted)) == {"pictures": 1, "runs": 2}
        assert size(out / "curves_base.png")[0] > 1000
    assert plot.run_names([first, second]) == ["0  base.learning_rate=0.1", "1  base.learning_rate=0.2"]
    assert plot.run_names([first]) == ["0"]


def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path) -> None:
    for wanted, message in [
        (None, r"name one with plot\.run=DIR"),
        (str(tmp_path / "nowhere"), r"nowhere: no such directory"),
        (str(tmp_path), r"no <stage>/csv/metrics\.csv in it, so nothing was trained there"),
    ]:
        with pytest.raises(UserError, match=message):
            plot.run(context(tmp_path / "out", wanted))
    path = write_rows(tmp_path / "run", "base", [])
    with pytest.raises(UserError, match="hold no row yet"):
        plot.run(context(tmp_path / "out", str(tmp_path / "run")))
    path.write_text("")
    assert plot.draw_finished(tmp_path / "run", "base") is None


def test_frequencies_alone_in_bits_per_note_only_where_they_are_known(tmp_path: Path) -> None:
    curves = read_curves([write_rows(tmp_path, "base", rows(range(20)))])
    assert unigram_bits_per_note(curves) == pytest.approx(18.0)
    curves.columns["val/bits_per_note"][1][-1] *= 1.1  # some targets are not of performances
    assert unigram_bits_per_note(curves) is None
    assert unigram_bits_per_note(read_curves([])) is None


def test_the_stage_needs_nothing_and_publishes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "trained", "finetune", rows(range(10)))
    places = (f"paths.artifacts={tmp_path}/artifacts", f"paths.work={tmp_path}/work")
    metrics = execute(composed("stage=plot", f"plot.run={tmp_path}/trained", *places), tmp_path / "run")
    assert metrics["artifact"] == str(tmp_path / "run")
    size(tmp_path / "run" / "curves_finetune.png")
    assert not (tmp_path / "artifacts").exists()
