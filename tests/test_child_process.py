"""Processes that end with their parent, however it dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest

from pianolm.child_process import start_worker, workers_killed_on_error

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import sys, time
from pianolm import child_process
{change}
child_process.end_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("change", ["", "child_process.sys.platform = 'other'"])
def test_it_ends_within_five_seconds_of_a_killed_parent(change: str) -> None:
    """By the kernel on Linux, by a thread elsewhere."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD.format(change=change)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_it_ends_at_once_where_the_parent_is_gone() -> None:
    code = "from pianolm.child_process import end_with_parent; end_with_parent(1); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def signal_itself() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return "goes on"


def break_off(pool: ProcessPoolExecutor) -> None:
    with workers_killed_on_error():
        assert pool.submit(signal_itself).result() == "goes on"
        pool.submit(time.sleep, 60)
        raise KeyError


def test_workers_of_a_pool_leave_signals_to_their_parent_and_are_killed_on_errors() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=start_worker) as pool:
        with pytest.raises(KeyError):
            break_off(pool)
        assert not multiprocessing.active_children()
