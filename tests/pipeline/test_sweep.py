"""Sweeps: a failed job stops no other one, and the sweep ends with a table of its jobs."""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pianolm.errors import UserError
from pianolm.pipeline.job_cores import Share
from pianolm.pipeline.sweep import ERROR, Sweep
from pianolm.report.sweep_results import JOBS
from pianolm.run import _end_sweep, execute
from pianolm.signals import STOP, StoppedBySignalError
from tests.experiment import load
from tests.test_run import run_cli
from tests.tiny import tiny

runs = load("exact-resume/runs.py")
LAUNCHERS = ["basic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("joblib", "ray"))]


PREPARE = ("stage=prepare", "data.pieces=3", "data.kinds=[performance]")


class Trial:
    """A sweep whose jobs run in this process.

    Attributes:
        ran: Numbers of the jobs that ran.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.ran = folder, []  # type: Path, list[int]

        def wait_for(sweep: Sweep, number: int, words: list[str], cfg: dict[str, Any], run_dir: Path) -> int:
            self.ran.append(number)
            try:
                execute(cfg, run_dir)
            except UserError as error:
                (run_dir / ERROR).write_text(str(error))
                return 1
            return 0

        monkeypatch.setattr(Sweep, "_wait_for", wait_for)

    def run(self, *jobs: tuple[str, ...], command: str = "a command") -> tuple[list[str], bool]:
        """Runs jobs with these overrides; returns the lines for the terminal and whether one failed."""
        sweep = Sweep(self.folder / "sweep")
        self.ran.clear()
        try:
            sweep.start([command], Share())
            for number, words in enumerate(jobs):
                cfg = tiny(self.folder, *(word for word in words if not word.startswith("data.pieces")))
                cfg["data"]["pieces"] = 3
                sweep.run_job(number, words, cfg, self.folder / "sweep" / str(number), None)
            return sweep.report()
        finally:
            STOP.deferred, STOP.forward = False, None

    def jobs_missing(self) -> bool:
        return Sweep(self.folder / "sweep").is_unfinished(["a command"])


def test_the_same_command_runs_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, jobs = Trial(tmp_path, monkeypatch), [(*PREPARE, f"data.seed={seed}") for seed in (1, 2)]
    bad = ("stage=prepare", "data.kinds=[score]")
    assert trial.run(*jobs, bad)[1], "one failed"
    assert trial.ran == [0, 1, 2]
    assert trial.jobs_missing()
    lines, _ = trial.run(*jobs, bad)
    assert trial.ran == [2], "the failed one alone"
    assert [line.split()[0] for line in lines if "done" in line] == ["0", "1"]
    shutil.rmtree(json.loads((tmp_path / "sweep" / "0" / "metrics.json").read_text())["artifact"])
    assert not trial.run(jobs[0], (*PREPARE, "data.seed=3"))[1]
    assert trial.ran == [0, 1], "one whose artifact is gone, and one with other options"
    assert not trial.jobs_missing()
    with pytest.raises(UserError, match="the sweep of another command found"):
        trial.run(jobs[0], command="another")


def test_a_sweep_that_runs_is_not_continued(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    try:
        sweep.start(["a command"], Share())
        assert not Sweep(tmp_path).is_unfinished(["a command"])
        with pytest.raises(UserError, match="runs in another process"):
            Sweep(tmp_path).start(["a command"], Share())
    finally:
        STOP.deferred, STOP.forward = False, None


def test_a_job_on_another_machine_is_stopped_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path)
    try:
        sweep.start(["a command"], Share())
    finally:
        STOP.deferred, STOP.forward = False, None
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        (tmp_path / JOBS / "stop").write_text(str(int(signal.SIGINT)))
        assert sweep._signalled(0, process) == -signal.SIGTERM
    assert not list((tmp_path / JOBS).glob("*.pid"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_is_one_sentence_and_the_others_run(launcher: str, tmp_path: Path) -> None:
    if launcher == "ray":
        pytest.importorskip("ray")
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
    assert f"pianolm: {sentence}\n" in done.stderr
    assert "Traceback" not in done.stderr
    *_, head, first, second, failed, path = done.stdout.splitlines()
    assert head.split()[:3] == ["job", "data.kinds", "state"]
    assert first.split()[:3] == ["0", "[score]", "failed"]
    assert second.split()[:3] == ["1", "[performance]", "done"]
    log = (tmp_path / "outputs" / "latest" / "0" / "run.log").resolve()
    assert failed == f"failed: job 0 (data.kinds=[score]): {sentence}; log: {log}"
    assert Path(path) == (tmp_path / "outputs" / "latest" / "sweep.csv").resolve()
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["state"], row["error"]) for row in rows] == [
        ("0", "failed", sentence),
        ("1", "done", ""),
    ]
    assert head in (tmp_path / "outputs" / "latest" / "run.log").read_text()
    assert sentence in log.read_text()
    if launcher == "joblib":  # slow; within one process above
        again = run_cli(*words, cwd=tmp_path)
        assert again.stdout.startswith("sweep: continues outputs/multirun/"), again.stderr
        assert "job 1: done before" in again.stdout
        assert again.stdout.splitlines()[-1] == path


def test_a_signal_to_the_sweep_reaches_the_job_that_runs_and_starts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands for the job: it signals the sweep, and ends as a job does that has saved its state."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\ntrap 'exit 143' TERM\nkill -TERM $PPID\nsleep 20 &\nwait\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    sweep, cfg = Sweep(tmp_path / "sweep"), tiny(tmp_path, "stage=base")
    STOP.install()
    try:
        sweep.start(["a command"], Share())
        for job in (0, 1):
            value = sweep.run_job(job, ["stage=base", f"seed={job}"], cfg, tmp_path / str(job), "val/loss")
            assert math.isnan(value)
        with pytest.raises(StoppedBySignalError, match="the sweep was ended by SIGTERM") as stopped:
            _end_sweep(sweep)
    finally:
        STOP.forward = None
        STOP.uninstall()
    assert stopped.value.exit_code == 143
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["stopped", "not run"]
    assert not (tmp_path / "1").exists()


@pytest.mark.slow  # processes of their own; the test above has a script in the place of a job
@pytest.mark.parametrize("launcher", ["basic", "joblib"])  # Ray puts words before the lines of progress
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
        assert run.output[-3].split()[:4] == ["2", "3", "not", "run"]
    assert "Traceback" not in text


@pytest.mark.slow  # half a minute: four processes
def test_jobs_that_begin_together_build_what_they_share_once(tmp_path: Path) -> None:
    words = (
        "stage=tokenize",
        "tokenizer=base",
        "tokenizer.ties=repeat,implicit",
        "tokenizer.tempo=log50,log50_tuned",
        "data.pieces=3",
    )
    done = run_cli("-m", *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    logs = "".join(path.read_text() for path in (tmp_path / "outputs" / "latest").glob("[0-3]/run.log"))
    assert logs.count("prepare: built ") == 1
    assert logs.count("codebook: built ") == 1
    assert logs.count("tokenize: built ") == 4


@pytest.mark.slow  # half a minute
def test_a_study_of_optuna_is_extended_in_its_directory(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = (
        "-m",
        "hydra/sweeper=optuna",
        "stage=codebook",
        "data.pieces=3",
        "data.seed=range(0,9)",
        "hydra.sweep.dir=s",
    )
    assert run_cli(*words, "hydra.sweeper.n_trials=2", cwd=tmp_path).returncode == 0
    done = run_cli(*words, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "s" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["0", "1", "2"]
    assert "best: job" in done.stdout
    assert done.stdout.count("codebook: built ") == 1, "the new trial alone"
    done = run_cli("stage=plot", "plot.run=s", cwd=tmp_path)
    assert "sweep.png" in done.stdout, done.stderr
