"""Processes that end with the process that started them, however that one dies."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pianolm.signals import leave_signals_to_parent

_PR_SET_PDEATHSIG = 1  # of Linux' sys/prctl.h
_POLL_SEC = 1.0
_WATCHER = "watch-parent"


def end_with_parent(parent: int) -> None:
    """Makes this process end within seconds of its parent, also where the parent is killed by SIGKILL.

    On Linux the kernel does it at once. Elsewhere, and where the kernel refuses, a thread watches the parent.

    Args:
        parent: Process id of the parent, known to it before it started this process.
    """
    if any(thread.name == _WATCHER for thread in threading.enumerate()):
        return  # called before
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this line
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True, name=_WATCHER).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SEC)
    os._exit(1)


def start_worker(worker_id: int = 0) -> None:
    """First call of a worker process of `multiprocessing`: it ends with its parent, which alone handles signals.

    Args:
        worker_id: Number of the worker, which torch's `DataLoader` passes; not used.
    """
    leave_signals_to_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a worker process"
    assert parent.pid is not None, "the parent runs"
    end_with_parent(parent.pid)


@contextmanager
def workers_killed_on_error() -> Iterator[None]:
    """Kills the worker processes of `multiprocessing` when the block is left by an exception.

    A pool would otherwise wait for the work that it has accepted.
    """
    try:
        yield
    except BaseException:
        kill_workers()
        raise


def kill_workers() -> None:
    """Kills all worker processes that this process started with `multiprocessing`."""
    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)  # those of joblib have no method for it
        worker.join()
