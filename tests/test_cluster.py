"""Several launchers as several machines, SLURM by its environment, and the commands of docs/cluster.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pianolm.pipeline.graph import Planner
from pianolm.run import checked
from tests.experiment import load
from tests.markdown import ROOT, blocks
from tests.tiny import TINY, composed, tiny

PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")


def sh_commands() -> Iterator[list[str]]:
    """Arguments of pianolm in the blocks for other shells than this test's."""
    for block in blocks(PAGE, "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "pianolm.run" in words:
                yield words[words.index("pianolm.run") + 1 :]


def test_the_commands_of_the_page_are_those_of_pianolm() -> None:
    found = list(sh_commands())
    assert [words[-1] for words in found] == ["hardware.strategy=fsdp", "trainer.max_steps=100000"]
    for words in found:
        assert composed(*checked(words))["hardware"]["devices"] == "auto"


def test_the_page_names_every_preset() -> None:
    presets = {path.stem for path in (ROOT / "conf" / "hardware").glob("*.yaml")}
    assert presets == set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", **more}


def places(root: Path) -> list[str]:
    return [f"paths.{name}={root}/{name}" for name in ("artifacts", "work", "outputs")]


def made(root: Path, *overrides: str) -> Path:
    """Where the base model with these overrides is published."""
    return root / "artifacts" / "base" / Planner(tiny(root, "stage=base", *overrides)).plan().fingerprint


@pytest.mark.slow  # four processes that import Lightning
@pytest.mark.timeout(900)  # a machine that does other work
def test_two_launchers_of_torchrun_are_two_machines(chain: Path, tmp_path: Path) -> None:
    """Both train with FSDP2; the first process alone prints and publishes, what one process would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launchers = []
    for rank in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}"]
        command += [
            "--nproc-per-node=1",
            "--master-addr=127.0.0.1",
            f"--master-port={port}",
            "-m",
            "pianolm.run",
        ]
        settings = [setting for setting in TINY if setting != "hardware=cpu"]
        hardware = ["hardware=torchrun", "hardware.accelerator=cpu", "hardware.precision=32-true"]
        hardware += ["hardware.strategy=fsdp"]
        command += [*settings, *places(chain), "stage=base", "seed=5", *hardware]
        launchers.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [launcher.communicate(timeout=800)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert "base: trains in 2 processes on 2 machines, fsdp" in outputs[0]
    assert "pianolm:" not in outputs[1]
    (line,) = [line for line in outputs[0].splitlines() if line.endswith("metrics.json")]
    metrics = json.loads((tmp_path / line).read_text())
    assert Path(metrics["artifact"]) == made(chain, "seed=5")
    reference = made(chain)
    assert {p.name for p in reference.iterdir()} == {p.name for p in Path(metrics["artifact"]).iterdir()}


@pytest.mark.slow  # trains for seconds in a process of its own
@pytest.mark.timeout(900)  # a machine that does other work
def test_a_slurm_job_whose_time_ends_saves_and_is_requeued(chain: Path, tmp_path: Path) -> None:
    """The process alone gets SIGUSR1, as from `sbatch --signal=USR1@SECONDS`; `scontrol` is a stand-in."""
    runs = load("exact-resume/runs.py")
    shutil.copytree(chain / "artifacts", tmp_path / "artifacts")
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/scontrol.txt\n")
    scontrol.chmod(0o755)
    steps = ["base.trainer.max_steps=4000", "callbacks.progress.every_n_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
        for name, value in {"JOB_ID": 12, "NTASKS": 1, "PROCID": 0, "STEP_NUM_TASKS": 1}.items():
            patch.setenv(f"SLURM_{name}", str(value))
        run = runs.Run([*TINY, "stage=base", *steps], tmp_path)
    with run:
        assert run.wait_for(lambda line: line.step >= 3), run.text
        run.process.send_signal(signal.SIGUSR1)
        assert run.process.wait(120) == 138, run.text
    assert run.output[-1] == "pianolm: SLURM job 12 is requeued and continues there"
    assert "base: ended by SIGUSR1; step" in run.text
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 12\n"
    assert list((tmp_path / "work" / "base").glob("*/last.ckpt"))
