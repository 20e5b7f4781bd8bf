from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.pipeline.slurm import requeue

NAMES = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "RANK")


@pytest.fixture(autouse=True)
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that notes its arguments in a file."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/calls\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "calls"


def test_a_job_goes_back_into_the_queue(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert requeue() == "SLURM job 77 is requeued and continues there"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue()
    assert scontrol.read_text() == "requeue 77\nrequeue 70_3\n"


@pytest.mark.parametrize("name", ["SLURM_PROCID", "RANK"])
def test_the_first_process_alone_does_it(name: str, scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert requeue() is None, "outside SLURM"
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv(name, "1")
    assert requeue() is None
    assert not scontrol.exists()


def test_a_job_that_may_not_be_requeued_says_so(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    (scontrol.parent / "scontrol").write_text("#!/bin/sh\necho Requeue disabled >&2\nexit 1\n")
    assert requeue() == "SLURM job 77 is not requeued (Requeue disabled); submit it again to continue"
    monkeypatch.setenv("PATH", "")
    assert "SLURM job 77 is not requeued ([Errno 2]" in str(requeue())
