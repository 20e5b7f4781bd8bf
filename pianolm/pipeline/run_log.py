"""`run.log`: what the terminal showed of a run, and the link to the last run's directory."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

RUN_LOG = "run.log"
LATEST = "latest"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
"""Escape sequences of terminals: colours, cursor movements, titles."""


class RunLog:
    """Copies the lines that this process prints to a file; lines before the file is known are kept until then."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._file: TextIO | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """From here on stdout and stderr are copied."""
        sys.stdout, sys.stderr = _Copied(sys.stdout, self), _Copied(sys.stderr, self)

    def close(self) -> None:
        """Closes the file; later lines go nowhere."""
        if self._file is not None:
            self._file.close()

    def open(self, path: Path) -> None:
        """Writes the lines so far, and all later ones, to a file; a file that cannot be written is left out."""
        with self._lock, contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        self.add("".join(self._lines))
        self._lines.clear()

    def add(self, text: str) -> None:
        """Adds whole lines."""
        if not text:
            return
        with self._lock:
            if self._file is None:
                self._lines.append(text)
                return
            with contextlib.suppress(
                OSError, ValueError
            ):  # a full disk, or a closed log, must not end the run
                self._file.write(text)
                self._file.flush()


LOG = RunLog()
"""The log of this process."""


class _Copied:
    """A stream of the terminal whose lines are copied to the log, without escape sequences and overwritten text."""

    def __init__(self, stream: TextIO, log: RunLog) -> None:
        self._stream, self._log, self._partial = stream, log, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        count = self._stream.write(text)
        *lines, rest = (self._partial + text).split("\n")
        self._partial = rest.rpartition("\r")[2] if not rest.endswith("\r") else rest
        shown = [_shown(line) for line in lines]
        self._log.add("".join(f"{line}\n" for line, raw in zip(shown, lines, strict=True) if line or not raw))
        return count

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)


def _shown(line: str) -> str:
    """What a terminal shows of a line in the end."""
    return _CONTROL.sub("", line).removesuffix("\r").rpartition("\r")[2]


def link_latest(outputs: Path, run_dir: Path) -> None:
    """Makes `outputs/latest` a link to a run's directory; `latest.txt` with its path where links are not possible."""
    outputs.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(run_dir.resolve(), outputs.resolve())
    partial = outputs / f".{LATEST}.{os.getpid()}"
    try:
        partial.symlink_to(target, target_is_directory=True)
        partial.replace(outputs / LATEST)
    except (OSError, NotImplementedError):
        partial.unlink(missing_ok=True)
        partial.write_text(f"{target}\n", "utf-8")
        partial.replace(outputs / f"{LATEST}.txt")
