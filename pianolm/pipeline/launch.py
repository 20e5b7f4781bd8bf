"""The processes 1 … n − 1 of a training stage, which get its resolved context from process 0.

Process 0 plans, builds what is upstream and publishes. The others take part in training and write only to a scratch
directory: they take no lock, build nothing, publish nothing.

Where process 0 was started alone, it starts them: `python -m pianolm.pipeline.launch job.json PARENT` reads the context
from a JSON file. (Lightning's own launcher runs `sys.argv` again, which under `-m` is the whole sweep.) Where torchrun
or srun started all of them with the same command, each of the others leaves planning to process 0 and waits for
contexts in a store that it fills (`ProcessGroup`).
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pianolm.child_process import end_with_parent
from pianolm.errors import UserError
from pianolm.signals import STOP, StoppedBySignalError
from pianolm.stage import StageContext
from pianolm.stages import find_stage
from pianolm.training.hardware import Launcher, find_launcher, resolve_hardware, trainer_arguments

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # re-exported from C++

_JOINING = timedelta(minutes=10)
"""How long processes that were started together wait for each other at the beginning."""
_COLLECTIVE = timedelta(minutes=30)
"""Lightning's and torch's usual limit of a collective operation."""
_POLL_SEC = 0.3
_LEAVING_SEC = 20.0
"""How long process 0 waits at its end until the others know of it; it may hold their store."""
_END = "end"
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


class ProcessGroup:
    """Processes that torchrun or srun started with the same command, of which process 0 leads the others.

    Args:
        launcher: The program that started them.
        store: Holds the jobs; torch's process group of each job finds its members in it, too.

    Attributes:
        led: The group that this process leads, None elsewhere.
    """

    led: ClassVar[ProcessGroup | None] = None

    def __init__(self, launcher: Launcher, store: Store) -> None:
        self.launcher, self._store, self._jobs = launcher, store, itertools.count()

    @classmethod
    def join(cls, launcher: Launcher) -> ProcessGroup:
        """Waits until all processes have come.

        Raises:
            UserError: Some do not come.
        """
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        if launcher.name == "srun":  # torchrun sets both itself
            from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

            environment = SLURMEnvironment(auto_requeue=False)
            os.environ["MASTER_ADDR"] = environment.main_address
            os.environ["MASTER_PORT"] = str(environment.main_port)
        try:
            found = rendezvous("env://", launcher.rank, launcher.processes, timeout=_JOINING)
            store, _, _ = next(found)
        except dist.DistError as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise UserError(
                f"the {launcher.processes} processes that {launcher.name} started do not find each other at {place}: "
                f"{error}; another address or port: MASTER_ADDR and MASTER_PORT"
            ) from error
        return cls(launcher, _part_of(store, "pianolm"))

    @contextmanager
    def running(self, context: StageContext, accelerator: str) -> Iterator[None]:
        """Runs the stage in the other processes while the block runs it in this one, process 0."""
        number = next(self._jobs)
        self._store.set(f"job {number}", context_to_json(context))
        with self._joined(number, accelerator):
            yield

    def end(self) -> None:
        """Lets the other processes end; called by process 0."""
        self._store.set(f"job {next(self._jobs)}", _END)
        patience = time.monotonic() + _LEAVING_SEC
        while self._store.add("left", 0) < self.launcher.processes - 1 and time.monotonic() < patience:
            time.sleep(_POLL_SEC)

    def serve(self) -> None:
        """Takes part in the jobs of process 0 until it ends.

        Raises:
            UserError: Process 0 is gone.
        """
        import torch.distributed as dist

        try:
            for number in self._jobs:
                if (job := self._wait_for(f"job {number}")) == _END:
                    break
                self._run(number, job)
        except (dist.DistNetworkError, dist.DistStoreError) as error:
            raise UserError(
                f"process {self.launcher.rank}: process 0 has ended; its error stands above"
            ) from error
        finally:  # also where a signal ends it
            with suppress(dist.DistNetworkError, dist.DistStoreError):
                self._store.add("left", 1)

    def _run(self, number: int, job: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            context = context_from_json(job, Path(scratch))
            accelerator = resolve_hardware(trainer_arguments(context.cfg, context.name)).accelerator
            with self._joined(number, accelerator):
                find_stage(context.name).run(context)

    def _wait_for(self, key: str) -> str:
        """Waits in small steps, so that a signal ends this process."""
        while not self._store.check([key]):
            time.sleep(_POLL_SEC)
        return bytes(self._store.get(key)).decode()

    @contextmanager
    def _joined(self, number: int, accelerator: str) -> Iterator[None]:
        """torch's process group of one job; Lightning takes the one that exists."""
        import torch.distributed as dist

        dist.init_process_group(
            "nccl" if accelerator == "gpu" else "gloo",
            store=_part_of(self._store, f"group {number}"),
            rank=self.launcher.rank,
            world_size=self.launcher.processes,
            timeout=_COLLECTIVE,
        )
        try:
            yield
        finally:
            _leave_group()


def _part_of(store: Store, name: str) -> Store:
    """A store whose keys are apart from all others of the same one."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # re-exported from C++

    return PrefixStore(name, store)


@contextmanager
def leading() -> Iterator[bool]:
    """Whether this process plans and publishes: false in all but one of the processes of torchrun or srun.

    In the others the block is entered when the first one has ended and there is nothing left to do.
    """
    launcher = find_launcher()
    if launcher is None or launcher.processes == 1:
        yield True
        return
    group = ProcessGroup.join(launcher)
    if launcher.rank:
        group.serve()
        yield False
        return
    ProcessGroup.led = group
    try:
        yield True
    finally:
        ProcessGroup.led = None
        group.end()


@contextmanager
def other_processes(context: StageContext) -> Iterator[None]:
    """Runs the stage in the processes 1 … n − 1 while the block runs it in this one, process 0."""
    hardware = resolve_hardware(trainer_arguments(context.cfg, context.name))
    if hardware.processes == 1:
        yield
        return
    if ProcessGroup.led is not None:
        running = ProcessGroup.led.running(context, hardware.accelerator)
    else:
        running = _started_processes(context, hardware.processes)
    with running:
        yield


@contextmanager
def _started_processes(context: StageContext, processes: int) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
    }
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job.json"
        job.write_text(context_to_json(context))
        children = [_launch(job, rank) for rank in range(1, processes)]
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
