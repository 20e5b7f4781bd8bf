"""Commands of pianolm in new processes, alone or under torchrun."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

PIANOLM = [sys.executable, "-m", "pianolm.run"]


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of results.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="draws the step at which the run is killed")
    parser.add_argument("--steps", type=int, default=15, help="optimizer steps that are timed in each run")
    return parser.parse_args()


def torchrun(machines: int, processes: int) -> list[list[str]]:
    """The beginnings of the commands that stand for so many machines: one launcher for each, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = [sys.executable, "-m", "torch.distributed.run"]
    place = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    sizes = ["--nnodes", str(machines), "--nproc-per-node", str(processes)]
    return [
        [*module, *sizes, *place, "--node-rank", str(rank), "-m", "pianolm.run"] for rank in range(machines)
    ]


def started(command: list[str], root: Path, **environment: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, with its output in a pipe."""
    return subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(processes: list[subprocess.Popen[str]]) -> None:
    """Waits for the end of processes that stand for one run each or for the machines of one run."""
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)
