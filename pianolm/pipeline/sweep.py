"""Sweeps (`-m`): each job runs in a process of its own, and the sweep ends with a table of its jobs.

Jobs may be started by other processes, on other machines too (`hydra/launcher=joblib|ray`), so the state of a sweep
lies in files of `.jobs/` in its directory: `sweep.json` says which command it runs, `<number>.pid` exists while a job
runs, `<number>.json` is its result, `before/` has the results of earlier runs of the same command, and `stop` is there
once a signal was received.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from pianolm.artifacts import fingerprint, problem_of
from pianolm.child_process import end_with_parent
from pianolm.config.neutral import GROUPS
from pianolm.errors import UserError
from pianolm.pipeline.graph import Planner
from pianolm.pipeline.job_cores import Share, share_of
from pianolm.pipeline.model_choice import choose_models
from pianolm.pipeline.run_log import LOG, RUN_LOG, link_latest
from pianolm.report.sweep_results import (
    CSV,
    JOBS,
    JobResult,
    numbers,
    read_result,
    read_results,
    table,
    write_result,
    write_results,
)
from pianolm.signals import STOP, leave_signals_to_parent
from pianolm.stages import find_stage

TRACEBACK = "PIANOLM_TRACEBACK"
"""Environment variable: the user's HYDRA_FULL_ERROR, which the command line sets for itself."""
ERROR = "error.txt"
"""File of a job's directory: the one sentence of its failure."""
_POLL_SEC = 0.5
_NOT_THE_COMMAND = ("hydra/launcher", "hydra.launcher.", "hydra.sweep.", "hydra.run.", "hydra.sweeper.n_")
"""Overrides that do not change which jobs a sweep has, or only how many."""


class RefusedError(BaseException):
    """Carries a user's error, its cause, past Hydra, which would print all overrides before the sentence."""


class Sweep:
    """The sweep of a directory.

    Args:
        directory: The sweep's directory, which holds those of its jobs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self._jobs = directory.absolute(), directory.absolute() / JOBS
        self._lock = FileLock(self._jobs / "lock")

    def start(self, command: Sequence[str], share: Share) -> None:
        """Called once, in the process that the user started: signals go to the jobs that run.

        Args:
            command: What distinguishes this sweep from others, for `unfinished`.
            share: What each job may use of the machine.

        Raises:
            UserError: The directory holds another sweep, or one that runs.
        """
        self._jobs.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.directory}: this sweep runs in another process; wait until it has ended"
            ) from None
        found = self._read("sweep.json").get("command", list(command))
        if found != list(command):
            raise UserError(
                f"hydra.sweep.dir={self.directory}: the sweep of another command found ({' '.join(found)}); give "
                "another directory, or remove this one"
            )
        (self._jobs / "before").mkdir(exist_ok=True)
        for path in self._jobs.glob("[0-9]*.json"):
            path.replace(self._jobs / "before" / path.name)
        for path in [self._jobs / "stop", *self._jobs.glob("*.pid")]:
            path.unlink(missing_ok=True)
        main = {"pid": os.getpid(), "host": socket.gethostname()}
        self._write("sweep.json", {"command": list(command), "complete": False, "main": main})
        self.share(share)
        STOP.deferred, STOP.forward = True, self._forward

    def share(self, share: Share) -> None:
        """Settles what each job may use of the machine."""
        self._write("share.json", {"cores": share.cores, "threads": share.threads})

    def _read(self, name: str) -> dict[str, Any]:
        path = self._jobs / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        (self._jobs / name).write_text(json.dumps(content), "utf-8")

    def is_unfinished(self, command: Sequence[str]) -> bool:
        """Whether this is a sweep of that command in which jobs are missing, and that does not run."""
        content = self._read("sweep.json")
        if content.get("complete", True) or content["command"] != list(command):
            return False
        with suppress(Timeout), self._lock.acquire(timeout=0):
            return True
        return False

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

        A job that an earlier run of the same command has done is not run again, as long as its result is what it would
        still be.

        Returns:
            The metric; NaN where the job failed or has none.
        """
        self._end_with_main_process()
        settings = fingerprint({key: value for key, value in cfg.items() if key not in GROUPS})
        result = self._done_before(number, overrides, cfg, settings)
        if result is not None:
            print(f"job {number}: done before, {result.directory}", flush=True)
        else:
            headlines = find_stage(cfg["stage"]["name"]).headlines
            fresh = JobResult(
                number,
                list(overrides),
                "not run",
                str(run_dir),
                metric or "",
                list(headlines),
                settings=settings,
            )
            stopped = (self._jobs / "stop").exists()
            result = fresh if stopped else self._run(fresh, cfg, run_dir)
        write_result(self._jobs / f"{number}.json", result)
        return math.nan if result.value is None else result.value

    def _run(self, fresh: JobResult, cfg: Mapping[str, Any], run_dir: Path) -> JobResult:
        code = self._wait_for(fresh.job, fresh.overrides, cfg, run_dir)
        state = {0: "done", 143: "stopped", 130: "stopped", 138: "stopped"}.get(code, "failed")
        return replace(
            fresh,
            state=state,
            metrics=numbers(_metrics(run_dir)) if state == "done" else {},
            error=_error(run_dir, code) if state == "failed" else "",
            log=str(run_dir / RUN_LOG),
        )

    def keep(self, number: int) -> None:
        """Takes the result that an earlier run of the command has left."""
        with suppress(FileNotFoundError):
            (self._jobs / "before" / f"{number}.json").replace(self._jobs / f"{number}.json")

    def lost(self, number: int, overrides: Sequence[str], reason: str) -> None:
        """Notes that a job failed whose process is gone, so that it cannot tell itself."""
        run_dir = self.directory / str(number)
        result = JobResult(
            number, list(overrides), "failed", str(run_dir), error=reason, log=str(run_dir / RUN_LOG)
        )
        write_result(self._jobs / f"{number}.json", result)

    def result(self, number: int) -> JobResult | None:
        """The result of a job, None while there is none."""
        path = self._jobs / f"{number}.json"
        return read_result(path) if path.is_file() else None

    def _done_before(
        self, number: int, overrides: Sequence[str], cfg: Mapping[str, Any], settings: str
    ) -> JobResult | None:
        path = self._jobs / "before" / f"{number}.json"
        result = read_result(path) if path.is_file() else None
        if result is None or result.state != "done" or result.settings != settings:
            return None
        return result if _is_current(cfg, overrides, _metrics(Path(result.directory))) else None

    def _end_with_main_process(self) -> None:
        """A process that a launcher started ends with the one that the user started, which handles signals."""
        main = self._read("sweep.json")["main"]["pid"]
        if os.getppid() == main:
            leave_signals_to_parent()
            end_with_parent(main)

    def _wait_for(self, number: int, overrides: Sequence[str], cfg: Mapping[str, Any], run_dir: Path) -> int:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in (ERROR, "metrics.json"):  # of an earlier run of the command
            (run_dir / name).unlink(missing_ok=True)
        share = Share(**self._read("share.json"))
        path = run_dir / "job.json"
        content = {
            "cfg": share.configured(cfg),
            "run_dir": str(run_dir),
            "sweep": self.directory.name,
            "overrides": list(overrides),
            "parent": os.getpid(),
        }
        path.write_text(json.dumps(content))
        command = [sys.executable, "-m", "pianolm.run", f"--job={path}"]
        environment = {**os.environ, **share.environment, "HYDRA_FULL_ERROR": os.environ.get(TRACEBACK, "0")}
        with subprocess.Popen(command, env=environment) as process:
            code = self._signalled(number, process)
        path.unlink()
        return code

    def _signalled(self, number: int, process: subprocess.Popen[bytes]) -> int:
        """Waits for a job; a signal reaches it from the main process, or on another machine through the file."""
        if self._read("sweep.json")["main"]["host"] == socket.gethostname():
            pid_file = self._jobs / f"{number}.pid"
            pid_file.write_text(str(process.pid))
            self._signal_if_stopped(pid_file)
            code = process.wait()
            pid_file.unlink()
            return code
        told = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_SEC)
            if not told and (self._jobs / "stop").exists():
                process.send_signal(signal.SIGTERM)
                told = True

    def report(self, failed_are_final: bool = False) -> tuple[list[str], bool]:
        """Writes `sweep.csv`; returns the lines for the terminal and whether any job failed.

        Args:
            failed_are_final: Whether the same command would not run failed jobs again.
        """
        results = read_results(self.directory)
        if not results:
            return [], False
        states = {one.state for one in results}
        complete = not STOP.received and states <= {"done", *(("failed",) if failed_are_final else ())}
        self._write("sweep.json", {**self._read("sweep.json"), "complete": complete})
        write_results(self.directory / CSV, results)
        return table(results), "failed" in states


def _metrics(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _is_current(cfg: Mapping[str, Any], overrides: Sequence[str], metrics: Mapping[str, Any]) -> bool:
    """Whether a run with these metrics has the result that the configuration, the data and the code have now."""
    try:
        node = Planner(choose_models(dict(cfg), overrides, lambda line: None)).plan()
    except UserError:
        return False
    upstream = {role: needed.fingerprint for role, needed in node.upstream.items()}
    if metrics.get("upstream") != upstream:
        return False
    artifact = Path(metrics["artifact"])
    return not node.definition.publishes or (
        artifact.name == node.fingerprint and artifact.is_dir() and problem_of(artifact) is None
    )


def _error(run_dir: Path, code: int) -> str:
    path = run_dir / ERROR
    if path.is_file():
        return path.read_text("utf-8")
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class SweepCallback(Callback):
    """Hydra's callback at the start of a sweep; `conf/config.yaml` names it.

    Attributes:
        current: The sweep of this process, None outside a sweep.
    """

    current: Sweep | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Starts the sweep, or continues an unfinished one of the same command: its directory, log and link."""
        command = command_of(config)
        directory = Path(config.hydra.sweep.dir)
        if not (directory / JOBS).exists() and not config.force:
            directory = _unfinished(directory.parent, command) or directory
            _set_directory(config, directory)
        sweep = Sweep(directory)
        continued = (directory / JOBS).exists()
        try:
            sweep.start(command, share_of(config))
        except UserError as error:
            raise RefusedError(error) from error
        SweepCallback.current = sweep
        LOG.open(directory / RUN_LOG)
        if continued:
            print(f"sweep: continues {directory}; force=true starts a new one", flush=True)
        link_latest(Path(config.paths.outputs), directory)


def command_of(config: DictConfig) -> list[str]:
    """The overrides that say which jobs a sweep has."""
    words = [*config.hydra.overrides.hydra, *config.hydra.overrides.task]
    return sorted(word for word in words if not word.lstrip("+").startswith(_NOT_THE_COMMAND))


def _unfinished(parent: Path, command: Sequence[str]) -> Path | None:
    """The newest sweep of a command in a folder that has not ended."""
    found = [path.parents[1] for path in sorted(parent.glob(f"*/{JOBS}/sweep.json"))]
    return next((path for path in reversed(found) if Sweep(path).is_unfinished(command)), None)


def _set_directory(config: DictConfig, directory: Path) -> None:
    """Changes the directory of the sweep, also for the configurations of jobs, which Hydra composes anew."""
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(directory)
        quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
        OmegaConf.update(
            config, "hydra.overrides.hydra", [*config.hydra.overrides.hydra, f"hydra.sweep.dir='{quoted}'"]
        )
