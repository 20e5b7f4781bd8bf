"""Jobs of a sweep on a cluster of Ray that others have started, by its address."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.test_run import run_cli

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # starts Ray, a minute on a busy machine

ONLY_THERE = "studio"
"""A resource of the cluster; a job that asks for it cannot run in a Ray that the sweep starts itself."""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def cluster() -> Iterator[int]:
    """A cluster of one machine on loopback; its port."""
    head, agent = free_ports(2)
    folder = tempfile.mkdtemp(prefix="ray")  # paths of sockets must be short
    command = ["ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    command += [f"--port={head}", "--include-dashboard=false"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"]
    command += ["--object-store-memory=100000000", f"--resources={json.dumps({ONLY_THERE: 2})}"]
    command += ["--disable-usage-stats"]
    patient = {"RAY_raylet_start_wait_time_s": "600", "RAY_agent_register_timeout_ms": "600000"}
    variables = {**os.environ, **patient, "PYTHONUNBUFFERED": "1"}  # a line is read when it is printed
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        started = any("Ray runtime started" in line for line in process.stdout)
        assert started, process.communicate()[0]
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


WORDS = ("-m", "stage=prepare", "data.pieces=3", "data.seed=1,2", "hydra/launcher=ray")


def test_a_sweep_goes_to_the_cluster_whose_address_is_given(tmp_path: Path) -> None:
    options = f"hydra.launcher.options={{resources:{{{ONLY_THERE}:1}}}}"
    with cluster() as port:
        done = run_cli(*WORDS, f"hydra.launcher.address=127.0.0.1:{port}", options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "outputs" / "latest" / "sweep.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "done"]


def test_a_cluster_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    done = run_cli(*WORDS, f"hydra.launcher.address={address}", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"pianolm: hydra.launcher.address={address}: no cluster of Ray answers" in done.stderr
    assert "Traceback" not in done.stderr
