"""The table of a sweep, its CSV file and its picture."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import Any

import pytest

from pianolm.report.sweep_plot import _order, save_sweep
from pianolm.report.sweep_results import (
    JOBS,
    JobResult,
    ranked,
    read_results,
    swept_options,
    table,
    write_result,
    write_results,
)
from tests.report.test_curves import size


def result(job: int, words: str, loss: float | None = None, **changes: Any) -> JobResult:
    metrics = {} if loss is None else {"val/loss": loss, "parameters": 1000, "seconds": 2.5}
    state = changes.pop("state", "failed" if loss is None else "done")
    directory = os.path.join(os.getcwd(), "runs", str(job))
    return JobResult(
        job,
        words.split(),
        state,
        directory,
        "val/loss",
        ["parameters"],
        metrics,
        log=f"{directory}/run.log",
        **changes,
    )


RESULTS = [
    result(0, "stage=base model.width=32", 3.14159265),
    result(1, "stage=base model.width=64 seed=1", error="out of\nluck"),
    result(2, "stage=base model.width=128", 3.0),
    result(10, "stage=base ~callbacks.progress", state="not run"),
]


def test_the_table_has_swept_options_state_metrics_and_directory_then_the_best_and_the_failed() -> None:
    assert table(RESULTS) == [
        "job  model.width  seed  state    val/loss  parameters  seconds  directory",
        "  0  32                 done      3.14159        1000      2.5  runs/0",
        "  1  64           1     failed          –           –        –  runs/1",
        "  2  128                done            3        1000      2.5  runs/2",
        " 10                     not run         –           –        –  runs/10",
        "best: job 2 (model.width=128), val/loss 3",
        f"failed: job 1 (model.width=64 seed=1): out of luck; log: {RESULTS[1].log}",
    ]
    assert table(RESULTS[:1])[0].split()[:4] == ["job", "stage", "model.width", "state"]


def test_a_diverged_job_is_never_the_best() -> None:
    jobs = [result(0, "seed=0", math.nan), result(1, "seed=1", 2.0), result(2, "seed=2", math.inf)]
    assert [one.job for one in ranked(jobs)] == [1]


def test_results_come_back_from_their_files_in_order_of_number(tmp_path: Path) -> None:
    (tmp_path / JOBS).mkdir()
    for one in reversed(RESULTS):
        write_result(tmp_path / JOBS / f"{one.job}.json", one)
    assert read_results(tmp_path) == RESULTS
    assert read_results(tmp_path / "nothing") == []


def test_the_csv_file_has_a_column_for_each_swept_option_and_metric(tmp_path: Path) -> None:
    write_results(tmp_path / "sweep.csv", RESULTS)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model.width"] for row in rows] == ["32", "64", "128", ""]
    assert [row["val/loss"] for row in rows] == ["3.14159265", "", "3.0", ""]
    assert [row["state"] for row in rows] == ["done", "failed", "done", "not run"]
    assert rows[1]["error"] == "out of\nluck"
    assert rows[1]["log"] == RESULTS[1].log
    assert rows[0]["seconds"] == "2.5"


@pytest.mark.parametrize("grid", [True, False])
def test_the_picture_has_a_panel_for_each_swept_option_and_one_for_the_best_runs(
    grid: bool, tmp_path: Path
) -> None:
    def words(n: int) -> str:
        lr, model = (10.0 ** -(1 + n % 3), ("tiny", "small")[n // 3]) if grid else (0.1 / (n + 1), f"m{n}")
        return f"optimizer.lr={lr} model={model} stage=base"

    jobs = [result(n, words(n), 3 - n / 10) for n in range(6)] + [result(6, words(0), error="x")]
    assert list(swept_options(jobs)) == ["optimizer.lr", "model"]
    assert save_sweep(jobs, tmp_path / "sweep.png", "a sweep")
    assert size(tmp_path / "sweep.png")[0] > 1000
    assert not save_sweep(jobs[6:], tmp_path / "none.png", "a sweep")
    assert not (tmp_path / "none.png").exists()


def test_lines_are_in_order_of_numbers_by_size_and_words_as_typed() -> None:
    groups = [("10", "tiny"), ("9", "small"), ("10", "small")]
    assert sorted(groups, key=lambda group: _order(group, groups)) == [groups[1], groups[0], groups[2]]
