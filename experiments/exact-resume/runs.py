"""Training runs in processes of their own: what they train, how they are followed and killed, how long they take."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from experiments.config import composed
from pianolm.run import execute

STEPS, VAL_EVERY, CHECKPOINT_EVERY = 160, 15, 10
"""The last step is no multiple of 15; every other validation before it coincides with a checkpoint."""

SHARED = (
    "data.pieces=8",
    "data.validation_fraction=0",  # on training pieces the last weights are the best, so that all kills come before
    "model.width=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=2",
    "model.ffn=48",
    "loader.context=64",
    "loader.batch_tokens=256",
    "trainer.max_steps=6",  # of the upstream artifacts
    "trainer.val_check_interval=3",
    "optimizer.warmup_steps=2",
    "velvq.codebook_size=32",
    "velvq.batch_cells=64",
    "velvq.max_steps=6",
    "velvq.val_every=3",
    "hardware=cpu",
    "logger=csv",
    "compute.threads=1",
    "model.dropout=0.1",
    "optimizer.lr=1e-3",
    "loader.val_tokens=2048",
    "callbacks.progress.every_n_steps=1",
    "trainer.log_every_n_steps=1",
)
_LINE = re.compile(r"^  step (\d+)/(\d+)  (.*)$")
_PATIENCE_SEC = 240


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        stage: base, finetune or velvq.
        processes: 1 or 2.
        settings: Overrides that change this stage only, so that all cases share the upstream artifacts.
    """

    stage: str
    processes: int
    settings: tuple[str, ...] = ()

    def overrides(self, steps: int = STEPS) -> list[str]:
        """The command line without its paths."""
        return [
            *SHARED,
            f"stage={self.stage}",
            *self._schedule(steps),
            f"callbacks.checkpoint.every_n_steps={CHECKPOINT_EVERY}",
            f"hardware={'cpu' if self.processes == 1 else 'ddp_cpu'}",
            *self.settings,
        ]

    def _schedule(self, steps: int) -> list[str]:
        if self.stage == "velvq":
            return [f"velvq.max_steps={steps}", f"velvq.val_every={VAL_EVERY}"]
        trainer = f"{self.stage}.trainer"
        return [f"{trainer}.max_steps={steps}", f"{trainer}.val_check_interval={VAL_EVERY}"]


_ACCUMULATED = "base.loader.micro_batch_tokens=64"
CASES = {
    f"{name}, {processes} process{'es' * (processes > 1)}": Case(stage, processes, settings)
    for name, stage, settings in (
        ("base", "base", (_ACCUMULATED,)),
        ("finetune", "finetune", ()),
        ("velvq=segment", "velvq", ("velvq=segment", "velvq.lr=0.02")),
        ("velvq=frame", "velvq", ("velvq=frame", "velvq.lr=0.003")),
    )
    for processes in (1, 2)
}


def build_upstream(root: Path, stage: str = "finetune", *overrides: str) -> Path:
    """Builds a stage and its upstream artifacts with tiny settings; returns the artifacts' directory."""
    execute(composed(*SHARED, *places(root), f"stage={stage}", *overrides), root / "run")
    return root / "artifacts"


def places(root: Path) -> list[str]:
    """Overrides that put all output below `root`."""
    return [
        f"paths.artifacts={root}/artifacts",
        f"paths.work={root}/work",
        f"paths.outputs={root}/outputs",
    ]


@dataclass(frozen=True)
class Line:
    """A line of progress.

    Attributes:
        seconds: When it was read.
        step: Optimizer steps done.
        validation: True for a validation, False for a training step.
    """

    seconds: float
    step: int
    validation: bool


class Run:
    """A training command in a process group of its own; leaving the `with` block kills it."""

    def __init__(self, overrides: list[str], root: Path) -> None:
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        self.lines: list[Line] = []
        self.output: list[str] = []
        self._news = threading.Condition()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pianolm.run", *overrides, *places(root)],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(root / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None, "a pipe"
        with self.process.stdout as pipe:
            for text in pipe:
                found = _LINE.match(text)
                with self._news:
                    self.output.append(text.rstrip("\n"))
                    if found:
                        validation = found[3].startswith("val/")
                        self.lines.append(Line(time.monotonic(), int(found[1]), validation))
                    self._news.notify_all()

    def wait_for(self, condition: Callable[[Line], bool]) -> bool:
        """Waits for a line of progress; False if the run ends without it."""
        seen = 0
        with self._news:
            while True:
                if any(condition(line) for line in self.lines[seen:]):
                    return True
                seen = len(self.lines)
                if self.process.poll() is not None:
                    return False
                self._news.wait(0.2)
                assert time.monotonic() - self.started < _PATIENCE_SEC, self.text

    def kill(self) -> bool:
        """SIGKILL to the group; False if the run had ended by itself."""
        alive = self.process.poll() is None
        if alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        return alive and self.process.returncode == -signal.SIGKILL

    def finish(self) -> None:
        """Waits for the end and asserts exit code 0."""
        assert self.process.wait(_PATIENCE_SEC) == 0, self.text
        self._reader.join(10)

    @property
    def text(self) -> str:
        """The last lines it printed."""
        return "\n".join(self.output[-40:])

    def orphans(self) -> list[str]:
        """Command lines of processes of the group that still run."""
        found = []
        for process in psutil.process_iter(["pid", "status", "cmdline"]):
            try:
                same = os.getpgid(process.pid) == self.process.pid
            except (ProcessLookupError, PermissionError):
                continue
            # a process that was just killed has no command line any more and may not be a zombie yet
            if same and process.info["status"] != psutil.STATUS_ZOMBIE and process.info["cmdline"]:
                found.append(" ".join(process.info["cmdline"]))
        return found


@dataclass(frozen=True)
class Timing:
    """Seconds that each phase takes in an uninterrupted run; random delays are drawn from them."""

    startup: float
    step: float
    validation: float
    publishing: float

    @classmethod
    def of(cls, run: Run) -> Timing:
        """Measures the phases from a run's lines, just after its end."""
        pairs = list(zip(run.lines, run.lines[1:], strict=False))
        steps = [b.seconds - a.seconds for a, b in pairs if not a.validation and not b.validation]
        validations = [b.seconds - a.seconds for a, b in pairs if not a.validation and b.validation]
        return cls(
            startup=run.lines[0].seconds - run.started,
            step=statistics.median(steps),
            validation=statistics.median(validations),
            publishing=time.monotonic() - run.lines[-1].seconds,
        )
