"""SIGTERM and Ctrl-C outside training, and twice."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pianolm.signals import STOP, StoppedBySignalError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    STOP.install()
    yield
    STOP.uninstall()


@pytest.mark.parametrize("start", ["-m pianolm.run", "-c from\\ pianolm.command\\ import\\ main;main()"])
def test_a_signal_during_the_imports_ends_in_one_line(start: str, tmp_path: Path) -> None:
    """The first import after the handlers blocks until the signal arrives."""
    (tmp_path / "hydra").mkdir()
    (tmp_path / "hydra" / "__init__.py").write_text(
        "import time\nprint('imports', flush=True)\ntime.sleep(60)\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, *shlex.split(start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "imports\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "pianolm: ended by SIGINT before a stage ran; nothing was saved\n"


def test_a_signal_between_stages_denies_nothing_that_was_built() -> None:
    code = (
        "import os, signal; from pianolm import run; "
        "run._main = lambda arguments: os.kill(os.getpid(), signal.SIGTERM); run.cli()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 143
    assert (
        done.stderr
        == "pianolm: ended by SIGTERM while no stage ran; artifacts that were built are complete\n"
    )


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_signal_ends_what_runs(signum: int, code: int) -> None:
    with pytest.raises(StoppedBySignalError) as caught:
        os.kill(os.getpid(), signum)
    assert caught.value.exit_code == code
    assert STOP.received == signum


def test_a_deferred_signal_is_noted_and_sent_twice_at_once_is_one() -> None:
    STOP.deferred = True
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert STOP.received == signal.SIGTERM


def test_handlers_of_a_library_are_replaced_again() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    STOP.install_again()
    with pytest.raises(StoppedBySignalError):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal, time; from pianolm.signals import STOP; STOP.install(); STOP.deferred = True; "
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.5); os.kill(os.getpid(), signal.SIGINT); "
        "time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 130


def test_a_forked_worker_ignores_ctrl_c_and_ends_at_sigterm() -> None:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
