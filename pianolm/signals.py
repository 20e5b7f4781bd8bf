"""SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (SLURM's time limit comes): how a run ends when it is asked to.

Outside training a signal raises `StoppedBySignalError` at once. While training it is deferred: the optimizer step ends
and the state is saved first (see `pianolm.training.checkpointing.LastCheckpoint`). A second signal ends the process.
Only the command line installs the handlers, so that programs that import pianolm keep their own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

REQUEUE = signal.SIGUSR1 if hasattr(signal, "SIGUSR1") else None  # Windows has none
"""What `sbatch --signal=USR1@SECONDS` sends before a job's time ends; see `pianolm.pipeline.slurm`."""
_HANDLED = (signal.SIGTERM, signal.SIGINT, *([REQUEUE] if REQUEUE else []))
_SAME_REQUEST_SEC = 0.3
"""A signal that follows this soon is the same request: `timeout` and SLURM signal a process and then its group."""
_WORKER_GRACE_SEC = 30.0
"""Time for which a worker goes on after SIGTERM, so that the current optimizer step gets its batches."""


class StoppedBySignalError(BaseException):
    """A signal asked this process to end.

    Attributes:
        signum: The signal.
        sentence: What was saved and how to continue, for the user; empty until that is known.
    """

    def __init__(self, signum: int, sentence: str = "") -> None:
        super().__init__(signum, sentence)
        self.signum, self.sentence = signum, sentence

    @property
    def signal_name(self) -> str:
        """SIGTERM, SIGINT or SIGUSR1."""
        return signal.Signals(self.signum).name

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for SIGINT and 138 for SIGUSR1, as shells report it."""
        return 128 + self.signum


def end_at_signals() -> None:
    """Makes signals end this process with one line, while it does nothing but import modules."""

    def end(signum: int, frame: FrameType | None) -> None:
        os.write(
            2,
            f"pianolm: ended by {signal.Signals(signum).name} before a stage ran; nothing was saved\n".encode(),
        )
        os._exit(128 + signum)

    for signum in _HANDLED:
        signal.signal(signum, end)


class StopSignals:
    """The signal handlers of a process, and whether a signal was received.

    Attributes:
        received: Number of the first signal received, 0 before.
        deferred: Whether a signal is only noted in `received`, instead of raising `StoppedBySignalError`.
        forward: Called with the number of the first signal received, before anything else happens.
    """

    def __init__(self) -> None:
        self.received, self.deferred = 0, False
        self.forward: Callable[[int], None] | None = None
        self._received_at, self._owner = 0.0, 0

    def install(self) -> None:
        """Handles the signals in this process from now on."""
        self.received, self.deferred, self._owner = 0, False, os.getpid()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)  # Ray blocks SIGINT in its workers
        self.install_again()

    def install_again(self) -> None:
        """Replaces handlers that a library has set since; does nothing where `install` was not called."""
        if self._owner == os.getpid() and threading.current_thread() is threading.main_thread():
            for signum in _HANDLED:
                signal.signal(signum, self._handle)

    def uninstall(self) -> None:
        """Goes back to Python's own handlers."""
        self.received, self.deferred, self._owner = 0, False, 0
        for signum in _HANDLED:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            _in_forked_process(signum)
            return
        if self.received:
            if time.monotonic() - self._received_at > _SAME_REQUEST_SEC:
                os._exit(128 + signum)
            return
        self.received, self._received_at = signum, time.monotonic()
        if self.forward is not None:
            self.forward(signum)
        if not self.deferred:
            raise StoppedBySignalError(signum)


STOP = StopSignals()
"""The signals of this process."""


def _in_forked_process(signum: int) -> None:
    """A forked worker leaves what all processes get, Ctrl-C and SIGUSR1, to the process that started it."""
    if signum == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def leave_signals_to_parent(grace_sec: float = _WORKER_GRACE_SEC) -> None:
    """Makes this worker process ignore Ctrl-C and SIGUSR1, and end only some time after SIGTERM: its parent ends it."""

    def end_later(signum: int, frame: FrameType | None) -> None:
        timer = threading.Timer(grace_sec, os._exit, [128 + signum])
        timer.daemon = True
        timer.start()

    for signum in _HANDLED:
        signal.signal(signum, end_later if signum == signal.SIGTERM else signal.SIG_IGN)
