"""Processes that torchrun or srun started: who leads, what the others do, how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from pianolm.pipeline import launch
from pianolm.pipeline.launch import ProcessGroup, leading, other_processes
from pianolm.stage import StageContext
from pianolm.training.hardware import Launcher
from tests.tiny import TINY, composed


@contextmanager
def no_group(*arguments: Any) -> Iterator[None]:
    """torch has one process group for a process, and here two members share one."""
    yield


def context(root: Path, **hardware: Any) -> StageContext:
    cfg = composed(*TINY, "hardware=torchrun", "stage=base")
    return StageContext(cfg, {"tokens": root}, root / "out", root / "work", root, "base", "abc", None)


def test_the_others_run_each_job_of_the_first_and_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get its context with another output directory, which they leave nothing in."""
    store, seen = dist.HashStore(), []

    class Recorded:
        def run(self, ctx: StageContext) -> None:
            seen.append(ctx)
            (ctx.out / "file").write_text("x")

    monkeypatch.setattr(launch, "find_stage", lambda name: Recorded())
    monkeypatch.setattr(ProcessGroup, "_joined", no_group)
    for name, value in (
        ("TORCHELASTIC_RUN_ID", "x"),
        ("RANK", 0),
        ("WORLD_SIZE", 2),
        ("LOCAL_WORLD_SIZE", 2),
    ):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(ProcessGroup, "join", classmethod(lambda cls, launcher: cls(launcher, store)))
    other = threading.Thread(target=ProcessGroup(Launcher("torchrun", 1, 2, 2), store).serve)
    other.start()
    with leading() as leads:
        assert leads
        for _ in range(2):
            with other_processes(context(tmp_path)):
                pass
    other.join(10)
    assert not other.is_alive()
    assert [ctx.name for ctx in seen] == ["base", "base"]
    assert [ctx.upstream for ctx in seen] == [{"tokens": tmp_path}] * 2
    assert not any(ctx.out.exists() or ctx.out.is_relative_to(tmp_path) for ctx in seen)
    assert ProcessGroup.led is None


COMMAND = """
import sys
from pianolm import run
sys.argv = ["pianolm", "stage=base", "plan=true"]
run.cli()
"""


@pytest.mark.slow  # two processes that import torch, and Lightning for SLURM's addresses
@pytest.mark.timeout(900)  # a machine that does other work
def test_srun_is_recognised_by_what_it_sets_and_only_its_first_process_plans(tmp_path: Path) -> None:
    with launch.socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {
            "SLURM_JOB_ID": "1234",
            "SLURM_JOB_NAME": "train",
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_NNODES": "2",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": "0",
            "SLURM_NODEID": str(rank),
            "MASTER_PORT": str(port),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", COMMAND],
                cwd=tmp_path,
                env={**launch.os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=800)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "build   base" in outputs[0]
    assert outputs[1] == ""


def test_a_context_survives_the_way_to_another_process(tmp_path: Path) -> None:
    sent = context(tmp_path)
    back = launch.context_from_json(
        json.dumps(json.loads(launch.context_to_json(sent))), tmp_path / "scratch"
    )
    assert back.cfg == sent.cfg
    assert (back.out, back.work, back.upstream) == (tmp_path / "scratch", sent.work, sent.upstream)
