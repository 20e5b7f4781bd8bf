"""The other processes of a training stage, launched from the resolved stage context instead of the command line.

Lightning's own launcher runs `sys.argv` again, which under `-m` is the whole sweep. Here rank 0 is the process that
plans and publishes; the others (`python -m pianolm.pipeline.launch job.json PARENT`) read the stage context from a JSON
file, take part in training and write only to a scratch directory: they take no lock, build nothing upstream, publish
nothing.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pianolm.child_process import end_with_parent
from pianolm.errors import UserError
from pianolm.signals import STOP, StoppedBySignalError
from pianolm.stage import StageContext
from pianolm.stages import find_stage
from pianolm.training.hardware import resolve_hardware, trainer_arguments

_LAUNCHED_OUTSIDE = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")
_ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK", "RANK")


def context_to_json(context: StageContext) -> str:
    """A context that another process can read back."""
    return json.dumps(
        {
            "cfg": context.cfg,
            "upstream": {role: str(path) for role, path in context.upstream.items()},
            "out": str(context.out),
            "work": str(context.work),
            "run_dir": str(context.run_dir),
            "name": context.name,
            "fingerprint": context.fingerprint,
            "sweep": context.sweep,
        }
    )


def context_from_json(text: str, out: Path) -> StageContext:
    """The context with another output directory."""
    fields = json.loads(text)
    return StageContext(
        cfg=fields["cfg"],
        upstream={role: Path(path) for role, path in fields["upstream"].items()},
        out=out,
        work=Path(fields["work"]),
        run_dir=Path(fields["run_dir"]),
        name=fields["name"],
        fingerprint=fields["fingerprint"],
        sweep=fields["sweep"],
    )


@contextmanager
def other_processes(context: StageContext) -> Iterator[None]:
    """Runs the stage in the processes 1 … n − 1 while the block runs it in this one, process 0."""
    hardware = resolve_hardware(trainer_arguments(context.cfg, context.name))
    if hardware.processes == 1 or any(name in os.environ for name in _LAUNCHED_OUTSIDE):
        yield
        return
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(hardware.processes),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
    }
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job.json"
        job.write_text(context_to_json(context))
        children = [_launch(job, rank) for rank in range(1, hardware.processes)]
        try:
            yield
            _join(children)
        finally:
            for child in children:
                child.kill()
                child.wait()
            _leave_group()
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _launch(job: Path, rank: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pianolm.pipeline.launch", str(job), str(os.getpid())],
        env={**os.environ, "LOCAL_RANK": str(rank)},
    )


def _join(children: list[subprocess.Popen[bytes]]) -> None:
    codes = [child.wait(timeout=120) for child in children]
    failed = [rank for rank, code in enumerate(codes, 1) if code]
    if failed:
        raise UserError(
            f"training process {failed[0]} ended with exit code {codes[failed[0] - 1]}; its error stands above"
        )


def _leave_group() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(job: Path) -> None:
    """Runs the stage of a job file as a process of rank above 0; what it would publish is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        context = context_from_json(job.read_text(), Path(scratch))
        find_stage(context.name).run(context)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    STOP.install()
    try:
        main(Path(sys.argv[1]))
    except StoppedBySignalError as stop:
        sys.exit(stop.exit_code)  # process 0 says what was saved
