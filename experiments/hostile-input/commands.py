"""The tiny chain as commands in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from experiments.config import composed

SETTINGS = (
    "data.pieces=8",
    "model.width=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=2",
    "model.ffn=48",
    "loader.context=64",
    "loader.batch_tokens=256",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "loader.val_tokens=512",
    "optimizer.warmup_steps=2",
    "velvq.codebook_size=32",
    "velvq.batch_cells=64",
    "velvq.max_steps=6",
    "velvq.val_every=3",
    "generate.pieces=2",
    "generate.beats=4",
    "callbacks.checkpoint.every_n_steps=2",
    "callbacks.progress.every_n_steps=1",
    "hardware=cpu",
    "logger=csv",
    "compute.threads=1",
)
PATIENCE_SEC = 600.0
STRAY_SEC = 5.0
"""Time that child processes have to end."""


def places(root: Path) -> tuple[str, ...]:
    """Overrides that put all output below a directory."""
    return (f"paths.artifacts={root}/artifacts", f"paths.work={root}/work", f"paths.outputs={root}/outputs")


def tiny(root: Path, *overrides: str) -> dict[str, Any]:
    """The configuration of a command."""
    return composed(*SETTINGS, *places(root), *overrides)


class Command:
    """A run of `python -m pianolm.run` in a session of its own.

    Attributes:
        lines: What it printed, with the seconds since its start.
    """

    def __init__(
        self, root: Path, overrides: Sequence[str], before: Callable[[], None] | None = None
    ) -> None:
        self.lines: list[tuple[float, str]] = []
        self._news = threading.Condition()
        self._start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pianolm.run", *SETTINGS, *places(root), *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            preexec_fn=before,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None, "a pipe"
        with self.process.stdout as pipe:
            for line in pipe:
                with self._news:
                    self.lines.append((time.monotonic() - self._start, line.rstrip("\n")))
                    self._news.notify_all()

    @property
    def text(self) -> str:
        """All it printed."""
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, pattern: str) -> float | None:
        """Waits for a line; returns the seconds at which it came, None if the command ends without it."""
        with self._news:
            while True:
                for seconds, line in self.lines:
                    if re.search(pattern, line):
                        return seconds
                if self.process.poll() is not None and not self._reader.is_alive():
                    return None
                assert time.monotonic() - self._start < PATIENCE_SEC, self.text
                self._news.wait(0.2)

    def finish(self) -> int:
        """Waits for its end; returns the exit code."""
        code = self.process.wait(PATIENCE_SEC)
        self._reader.join(STRAY_SEC)
        return code

    def end(self, signum: signal.Signals) -> int | None:
        """Sends a signal to it, not to its children, and waits; None if it had ended before."""
        if self.process.poll() is not None:
            return None
        self.process.send_signal(signum)
        return self.finish()

    def strays(self) -> list[str]:
        """Processes of its session that still run after `STRAY_SEC`."""
        until = time.monotonic() + STRAY_SEC
        while (found := self._alive()) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _alive(self) -> list[str]:
        found = []
        for process in psutil.process_iter(["pid", "status", "cmdline"]):
            try:
                same = os.getsid(process.pid) == self.process.pid
            except (ProcessLookupError, PermissionError):
                continue
            if same and process.info["status"] != psutil.STATUS_ZOMBIE and process.info["cmdline"]:
                found.append(" ".join(process.info["cmdline"]))
        return found
