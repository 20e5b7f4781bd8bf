"""Sweeps: a failed job stops no other one, and the sweep ends with a table of its jobs."""

from __future__ import annotations

import csv
import shutil
import signal
from pathlib import Path

import pytest

from pianolm.pipeline.sweep import JobResult, table
from tests.experiment import load
from tests.test_run import run_cli

runs = load("exact-resume/runs.py")


def result(
    job: int, words: str, status: str = "done", value: float | None = None, error: str = ""
) -> JobResult:
    return JobResult(job, words.split(), status, "val/loss", value, error, f"/runs/{job}")


def test_the_table_shows_where_jobs_differ_and_the_metric_or_why_there_is_none() -> None:
    results = [
        result(0, "stage=base model.width=32", value=3.14159265),
        result(1, "stage=base model.width=64 seed=1", "failed", error="out of\nluck"),
        result(10, "stage=base model.width=128", "not run"),
    ]
    assert table(results) == [
        "job  overrides              val/loss",
        "  0  model.width=32         3.14159",
        "  1  model.width=64 seed=1  failed: out of luck",
        " 10  model.width=128        not run",
    ]
    assert table(results[:1])[1] == "  0  stage=base model.width=32  3.14159"


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_failed_job_is_one_sentence_and_the_others_run(launcher: str, tmp_path: Path) -> None:
    words = (
        "-m",
        "stage=prepare",
        "data.pieces=3",
        "data.kinds=[score],[performance]",
        f"hydra/launcher={launcher}",
    )
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    sentence = "data.kinds=['score']: no file of that kind in data.source=demo"
    assert done.stderr == f"pianolm: {sentence}\n"
    *_, head, first, second, path = done.stdout.splitlines()
    assert head.split() == ["job", "overrides", "result"]
    assert first == f"  0  data.kinds=[score]        failed: {sentence}"
    assert second == "  1  data.kinds=[performance]  done"
    assert Path(path) == (tmp_path / "outputs" / "latest" / "sweep.csv").resolve()
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["status"], row["error"]) for row in rows] == [
        ("0", "failed", sentence),
        ("1", "done", ""),
    ]
    assert head in (tmp_path / "outputs" / "latest" / "run.log").read_text()
    assert sentence in (Path(rows[0]["directory"]) / "run.log").read_text()


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_sigterm_lets_the_running_jobs_save_and_starts_no_other(launcher: str, tmp_path: Path) -> None:
    """The process of the sweep alone gets the signal."""
    upstream = runs.build_upstream(tmp_path / "upstream", "tokenize", "tokenizer=base")
    shutil.copytree(upstream, tmp_path / "artifacts")
    overrides = runs.Case("base", 1).overrides(5000)
    with runs.Run(["-m", *overrides, "seed=1,2,3", f"hydra/launcher={launcher}"], tmp_path) as run:
        assert run.wait_for(lambda line: line.step >= 2), run.text
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 143, run.text
        assert run.orphans() == []
    text = run.text
    assert "the same command continues from there" in text
    assert run.output[-1].startswith("pianolm: the sweep was ended by SIGTERM")
    states = [line.split()[2] for line in run.output if line.startswith(("  0 ", "  1 ", "  2 "))]
    assert states[0] == "stopped"
    assert len(states) == 3
    if launcher == "basic":
        assert run.output[-3].split() == ["2", "seed=3", "not", "run"]
    assert "Traceback" not in text
