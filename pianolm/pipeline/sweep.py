"""Sweeps (`-m`): each job runs in a process of its own, and the sweep ends with a table of its jobs.

Jobs may be started by other processes (`hydra/launcher=joblib`), so the state of a sweep lies in files:
`.jobs/<number>.pid` while a job runs, `.jobs/<number>.json` with its result, and `.jobs/stop` once a signal was
received.
"""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pianolm.child_process import end_with_parent
from pianolm.pipeline.run_log import LOG, RUN_LOG, link_latest
from pianolm.signals import STOP, leave_signals_to_parent

_JOBS = ".jobs"
TRACEBACK = "PIANOLM_TRACEBACK"
"""Environment variable: the user's HYDRA_FULL_ERROR, which the command line sets for itself."""
ERROR = "error.txt"
"""File of a job's directory: the one sentence of its failure."""


@dataclass(frozen=True)
class JobResult:
    """A row of the table.

    Attributes:
        job: Number of the job.
        overrides: Its overrides.
        status: done, failed, stopped (by a signal) or not run.
        metric: Name of the stage's validation metric, empty where it has none.
        value: The metric's value, None where there is none.
        error: Why the job failed, empty where it did not.
        directory: Its run directory.
    """

    job: int
    overrides: list[str]
    status: str
    metric: str
    value: float | None
    error: str
    directory: str


class Sweep:
    """The sweep of a directory.

    Args:
        directory: The sweep's directory, which holds those of its jobs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self._jobs = directory.absolute(), directory.absolute() / _JOBS

    def start(self) -> None:
        """Called once, in the process that the user started: signals go to the jobs that run."""
        self._jobs.mkdir(parents=True, exist_ok=True)
        (self._jobs / "main.pid").write_text(str(os.getpid()))
        STOP.deferred, STOP.forward = True, self._forward

    def _forward(self, signum: int) -> None:
        (self._jobs / "stop").write_text(str(signum))
        for path in self._jobs.glob("[0-9]*.pid"):
            self._signal_if_stopped(path)

    def _signal_if_stopped(self, pid_file: Path) -> None:
        """Signals a job if the sweep was stopped; sent twice in quick succession it counts once."""
        with suppress(OSError, ValueError):  # the job has ended
            os.kill(int(pid_file.read_text()), int((self._jobs / "stop").read_text()))

    def run_job(
        self, number: int, overrides: Sequence[str], cfg: Mapping[str, Any], run_dir: Path, metric: str | None
    ) -> float:
        """Runs a job in a process of its own: memory, threads and W&B runs of one job never reach the next.

        Returns:
            The metric; NaN where the job failed or has none.
        """
        self._end_with_main_process()
        status, value, error = "not run", None, ""
        if not (self._jobs / "stop").exists():
            code = self._wait_for(number, overrides, cfg, run_dir)
            status = {0: "done", 143: "stopped", 130: "stopped", 138: "stopped"}.get(code, "failed")
            value = _metric(run_dir, metric) if status == "done" else None
            error = _error(run_dir, code) if status == "failed" else ""
        result = JobResult(number, list(overrides), status, metric or "", value, error, str(run_dir))
        (self._jobs / f"{number}.json").write_text(json.dumps(asdict(result)))
        return math.nan if value is None else value

    def _end_with_main_process(self) -> None:
        """A process that a launcher started ends with the one that the user started, which handles signals."""
        main = int((self._jobs / "main.pid").read_text())
        if os.getppid() == main:
            leave_signals_to_parent()
            end_with_parent(main)

    def _wait_for(self, number: int, overrides: Sequence[str], cfg: Mapping[str, Any], run_dir: Path) -> int:
        run_dir.mkdir(parents=True, exist_ok=True)
        path, pid_file = run_dir / "job.json", self._jobs / f"{number}.pid"
        content = {
            "cfg": cfg,
            "run_dir": str(run_dir),
            "sweep": self.directory.name,
            "overrides": list(overrides),
            "parent": os.getpid(),
        }
        path.write_text(json.dumps(content))
        command = [sys.executable, "-m", "pianolm.run", f"--job={path}"]
        environment = {**os.environ, "HYDRA_FULL_ERROR": os.environ.get(TRACEBACK, "0")}
        with subprocess.Popen(command, env=environment) as process:
            pid_file.write_text(str(process.pid))
            self._signal_if_stopped(pid_file)
            code = process.wait()
        pid_file.unlink()
        path.unlink()
        return code

    def report(self) -> tuple[list[str], bool]:
        """Writes `sweep.csv`; returns the lines of the table and whether any job failed."""
        found = [json.loads(path.read_text()) for path in self._jobs.glob("[0-9]*.json")]
        results = sorted((JobResult(**fields) for fields in found), key=lambda result: result.job)
        if not results:
            return [], False
        with (self.directory / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(asdict(results[0])))
            writer.writeheader()
            writer.writerows({**asdict(one), "overrides": " ".join(one.overrides)} for one in results)
        return table(results), any(one.status == "failed" for one in results)


def _metric(run_dir: Path, name: str | None) -> float | None:
    path = run_dir / "metrics.json"
    value = json.loads(path.read_text()).get(name) if name is not None and path.is_file() else None
    return None if value is None else float(value)


def _error(run_dir: Path, code: int) -> str:
    path = run_dir / ERROR
    if path.is_file():
        return path.read_text("utf-8")
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def table(results: Sequence[JobResult]) -> list[str]:
    """Lines of the table: number, the overrides in which the jobs differ, and the metric or why there is none."""
    common = set(results[0].overrides).intersection(*(one.overrides for one in results))
    rows = [("job", "overrides", next((one.metric for one in results if one.metric), "result"))]
    for one in results:
        words = [word for word in one.overrides if len(results) == 1 or word not in common]
        value = one.status if one.value is None else f"{one.value:.6g}"
        rows.append(
            (str(one.job), " ".join(words), f"failed: {one.error}" if one.status == "failed" else value)
        )
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {' '.join(row[2].split())}" for row in rows]


class SweepCallback(Callback):
    """Hydra's callback at the start of a sweep; `conf/config.yaml` names it.

    Attributes:
        current: The sweep of this process, None outside a sweep.
    """

    current: Sweep | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Starts the sweep: its directory, log and link."""
        directory = Path(config.hydra.sweep.dir)
        SweepCallback.current = Sweep(directory)
        SweepCallback.current.start()
        LOG.open(directory / RUN_LOG)
        link_latest(Path(config.paths.outputs), directory)
