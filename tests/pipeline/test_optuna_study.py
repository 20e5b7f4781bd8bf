"""Sweeps by Optuna: the search space, and trials that are interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.errors import UserError
from pianolm.pipeline.job_cores import Share
from pianolm.pipeline.optuna_study import run_trials, search_space
from pianolm.pipeline.sweep import Sweep, SweepCallback
from pianolm.report.sweep_results import JOBS, JobResult, write_result
from pianolm.signals import STOP

optuna = pytest.importorskip("optuna")
OPTIONS = {"n_trials": 7, "n_jobs": 2, "sampler": "tpe", "seed": 3, "params": {"model.width": "32,64"}}
WORDS = ["stage=base", "optimizer.lr=tag(log,interval(1e-4,1e-1))"]


def test_the_search_space_is_that_of_hydras_sweep_syntax() -> None:
    lr, word = "optimizer.lr=tag(log,interval(1e-4,1e-2))", "model=tiny,small"
    fixed, space = search_space(
        [
            "stage=base",
            lr,
            word,
            "seed=range(0,10,2)",
            "trainer.max_steps=int(interval(1,9))",
            "a=interval(0,1.5)",
        ]
    )
    assert fixed == {"stage": "base"}
    assert space == {
        "optimizer.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "model": optuna.distributions.CategoricalDistribution(["tiny", "small"]),
        "seed": optuna.distributions.IntDistribution(0, 8, step=2),
        "trainer.max_steps": optuna.distributions.IntDistribution(1, 9),
        "a": optuna.distributions.FloatDistribution(0.0, 1.5),
    }


def test_what_cannot_be_searched_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to search"):
        search_space(["stage=base"])
    with pytest.raises(UserError, match=r"stage=generate has no metric to minimise; .* base,"):
        run_trials(OPTIONS, WORDS, "generate", lambda batch, first: None)


def study_of(
    folder: Path, stop_at: int | None = None, fail_at: int | None = None
) -> list[tuple[int, list[str]]]:
    """Runs the trials of a study, whose metric is the learning rate; returns the jobs that ran."""
    ran: list[tuple[int, list[str]]] = []

    def launch(batch: list[list[str]], first: int) -> None:
        for number, words in enumerate(batch, first):
            ran.append((number, words))
            state = {stop_at: "stopped", fail_at: "failed"}.get(number, "done")
            value = {"val/loss": float(words[-1].partition("=")[2])} if state == "done" else {}
            write_result(
                folder / JOBS / f"{number}.json",
                JobResult(number, words, state, "", "val/loss", metrics=value),
            )

    sweep = Sweep(folder)
    sweep.start(["a command"], Share())
    SweepCallback.current = sweep
    try:
        run_trials(OPTIONS, WORDS, "base", launch)
    finally:
        SweepCallback.current = None
        STOP.deferred, STOP.forward = False, None
    return ran


def test_an_interrupted_study_goes_on_with_the_values_of_an_unbroken_one(tmp_path: Path) -> None:
    whole = study_of(tmp_path / "whole")
    assert [number for number, _ in whole] == list(range(7))
    assert {words[1] for _, words in whole} == {"model.width=32", "model.width=64"}
    assert study_of(tmp_path / "parts", stop_at=4) == whole[:6]
    assert study_of(tmp_path / "parts") == whole[4:], (
        "the trial that was stopped, that of its batch, and new ones"
    )
    assert study_of(tmp_path / "parts") == []
    assert len(list((tmp_path / "parts" / JOBS).glob("[0-9]*.json"))) == 7, "results of all, for the table"


def test_a_failed_trial_stops_no_other_one_and_counts(tmp_path: Path) -> None:
    assert len(study_of(tmp_path, fail_at=1)) == 7
    assert study_of(tmp_path) == []
