"""Processes that process 0 starts: what they are told, and how they end. Shell scripts stand for them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pianolm.errors import UserError
from pianolm.pipeline import launch
from pianolm.pipeline.launch import context_from_json, context_to_json, other_processes
from pianolm.stage import StageContext
from tests.tiny import tiny

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    cfg = tiny(tmp_path, "stage=base", "hardware=ddp_cpu", "hardware.devices=3")
    folders = [tmp_path / name for name in ("out", "work", "run")]
    return StageContext(cfg, {"tokens": tmp_path / "tokens"}, *folders, "base", "0123", sweep="sweep")


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A script in place of Python, which writes what it was started with into a file named by its rank."""
    script = tmp_path / "python"
    told = (
        f'echo "$LOCAL_RANK $WORLD_SIZE $NODE_RANK $MASTER_ADDR:$MASTER_PORT $*" > {tmp_path}/rank$LOCAL_RANK'
    )
    script.write_text(f"#!/bin/sh\n{told}\n{end}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_each_is_told_its_rank_the_number_of_all_and_the_job(
    context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, 'cp "$3" ' + f"{tmp_path}/job$LOCAL_RANK")
    with other_processes(context):
        assert (os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"]) == ("3", "0")
        meet = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    for rank in (1, 2):
        words = (tmp_path / f"rank{rank}").read_text().split()
        assert words[:4] == [str(rank), "3", "0", meet]
        assert words[4:6] == ["-m", "pianolm.pipeline.launch"]
        assert words[7] == str(os.getpid())
        assert (tmp_path / f"job{rank}").read_text() == context_to_json(context)
    assert not set(VARIABLES) & set(os.environ), "as before"


def test_one_that_fails_is_one_sentence_and_none_is_left(
    context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "exit $((2 * LOCAL_RANK - 2))")
    with (
        pytest.raises(UserError, match=r"^training process 2 ended with exit code 2; its error stands above"),
        other_processes(context),
    ):
        pass
    # renamed once it is written, so that a process that is killed meanwhile leaves no empty file
    named = f"mv {tmp_path}/new$LOCAL_RANK {tmp_path}/pid$LOCAL_RANK"
    stand_in(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/new$LOCAL_RANK; {named}; exec sleep 60")
    with pytest.raises(RuntimeError, match="here"), other_processes(context):
        raise RuntimeError("here")
    for path in tmp_path.glob("pid*"):  # one that had not begun yet left none
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_what_one_above_rank_0_makes_is_thrown_away(
    context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[StageContext] = []

    def run(given: StageContext) -> None:
        (given.out / "model.safetensors").write_text("weights")
        ran.append(given)

    monkeypatch.setattr(launch, "find_stage", lambda name: SimpleNamespace(run=run))
    (tmp_path / "job.json").write_text(context_to_json(context))
    launch.main(tmp_path / "job.json")
    (one,) = ran
    assert one == context_from_json(context_to_json(context), one.out)
    assert not one.out.exists()
    assert not context.out.exists()
