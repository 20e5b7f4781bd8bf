"""Stage `plot`: one run or several compared, by directory, list or pattern."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pianolm.errors import UserError
from pianolm.pipeline.run_log import link_latest
from pianolm.report.runs import draw_finished, run_names, selected_runs
from pianolm.report.sweep_results import JOBS, JobResult, write_result
from pianolm.run import execute
from pianolm.stage import StageContext
from pianolm.stages import plot
from tests.report.test_curves import rows, size, write_rows
from tests.test_run import run_cli
from tests.tiny import composed


def context(folder: Path, run: Any) -> StageContext:
    folder.mkdir(parents=True, exist_ok=True)
    return StageContext({"plot": {"run": run}}, {}, folder, folder, folder, "plot")


def test_each_trained_stage_has_a_picture(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_rows(run, "base", rows(range(40)))
    write_rows(run, "velvq", [{"step": s, "train/loss": 0.1, "val/velocity_mae": 1.0} for s in range(3)])
    assert plot.run(context(tmp_path / "out", str(run))) == {"pictures": 2, "runs": 1}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"curves_base.png", "curves_velvq.png"}
    assert size(tmp_path / "out" / "curves_base.png")[0] > 1000


def test_runs_are_compared_by_list_pattern_and_directory_above(tmp_path: Path) -> None:
    for job, rate in enumerate(("0.1", "0.2")):
        write_rows(tmp_path / "sweep" / str(job), "base", rows(range(20), shift=job))
        hydra = tmp_path / "sweep" / str(job) / ".hydra"
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text(f"- stage=base\n- base.learning_rate={rate}\n")
    first, second = (tmp_path / "sweep" / str(job) for job in range(2))
    for wanted in ([str(first), str(second)], f"{tmp_path}/sweep/*", str(tmp_path / "sweep")):
        assert list(selected_runs({"run": wanted})) == [first, second]
    out = tmp_path / "out"
    assert plot.run(context(out, str(tmp_path / "sweep"))) == {"pictures": 1, "runs": 2}
    assert size(out / "curves_base.png")[0] > 1000
    assert run_names([first, second]) == ["0  base.learning_rate=0.1", "1  base.learning_rate=0.2"]
    assert run_names([first]) == ["0"]


def test_of_a_sweep_options_are_drawn_and_the_curves_of_its_best_runs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (sweep / JOBS).mkdir(parents=True)
    for job in range(10):
        directory = sweep / str(job)
        if job > 1:  # the other ones reuse what was trained elsewhere
            write_rows(directory, "base", rows(range(20), shift=job))
        words, metrics = ["stage=base", f"optimizer.lr={job + 1}e-3"], {"val/loss": 5.0 + job}
        result = JobResult(job, words, "done", str(directory), "val/loss", metrics=metrics)
        write_result(sweep / JOBS / f"{job}.json", result)
    assert plot.run(context(tmp_path / "out", str(sweep))) == {"pictures": 2, "runs": 6}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"sweep.png", "curves_base.png"}
    assert list(selected_runs({"run": str(sweep)})) == [sweep / str(job) for job in range(2, 8)]
    for job in range(2, 10):
        shutil.rmtree(sweep / str(job))
    assert plot.run(context(tmp_path / "again", str(sweep))) == {"pictures": 1, "runs": 0}


def test_a_wrong_run_is_told_in_one_sentence(tmp_path: Path) -> None:
    for wanted, message in [
        (None, r"plot\.run is not set"),
        (str(tmp_path / "nowhere"), r"nowhere: no such directory"),
        (str(tmp_path), r"no <stage>/csv/metrics\.csv in it, so nothing was trained there"),
    ]:
        with pytest.raises(UserError, match=message):
            plot.run(context(tmp_path / "out", wanted))
    path = write_rows(tmp_path / "run", "base", [])
    with pytest.raises(UserError, match=r"no row in its metrics\.csv yet"):
        plot.run(context(tmp_path / "out", str(tmp_path / "run")))
    path.write_text("")
    assert draw_finished(tmp_path / "run", "base") is None


def test_the_stage_needs_nothing_and_publishes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "trained", "finetune", rows(range(10)))
    places = (f"paths.artifacts={tmp_path}/artifacts", f"paths.work={tmp_path}/work")
    metrics = execute(composed("stage=plot", f"plot.run={tmp_path}/trained", *places), tmp_path / "run")
    assert metrics["artifact"] == str(tmp_path / "run")
    size(tmp_path / "run" / "curves_finetune.png")
    assert not (tmp_path / "artifacts").exists()


def test_the_latest_run_is_drawn_and_stays_the_latest(tmp_path: Path) -> None:
    trained = tmp_path / "outputs" / "base" / "1"
    write_rows(trained, "base", rows(range(10)))
    link_latest(tmp_path / "outputs", trained)
    done = run_cli("stage=plot", "plot.run=outputs/latest", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/plot/*/curves_base.png"))) == 1
    assert (tmp_path / "outputs" / "latest").resolve() == trained
