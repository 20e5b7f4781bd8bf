"""FSDP2 trains what one process trains, and its checkpoints are those of one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.lm.distributed_toys import Run, checkpoint, largest_difference, start, train
from tests.lm.toys import toy_store

NAMES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")
ROUNDING = 2e-5

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_group() -> Iterator[None]:
    """Lightning leaves torch's process group and its address to the end of the program."""
    before = {name: os.environ.get(name) for name in NAMES}
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_sharded_run_and_its_checkpoints_equal_a_plain_one(optimizer: str, tmp_path: Path) -> None:
    """Each continues the other's checkpoint, too."""
    store = toy_store(tmp_path / "store")
    for run in (
        Run("plain", "auto", optimizer),
        Run("plain 2", "auto", optimizer, steps=2),
        Run("sharded 2", "fsdp", optimizer, steps=2),
        Run("plain from sharded", "auto", optimizer, resume="sharded 2"),
        Run("sharded from plain", "fsdp", optimizer, resume="plain 2", checkpointing=True),
    ):
        train(run, store, tmp_path)
    plain = checkpoint(tmp_path, "plain")
    for name in ("plain from sharded", "sharded from plain"):
        assert largest_difference(plain, checkpoint(tmp_path, name)) < ROUNDING, name


@pytest.mark.slow  # seven processes
@pytest.mark.timeout(900)  # a machine that does other work
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_two_and_four_processes_train_the_same_and_continue_each_other(
    optimizer: str, tmp_path: Path
) -> None:
    """Micro-batches of one row: an optimizer step has four, two or one of them on each process."""
    store = toy_store(tmp_path / "store")
    rows = {"optimizer": optimizer, "micro_batch_tokens": 32}
    train(Run("one", **rows), store, tmp_path)
    start(
        2, [Run(f"two {s} {n}", s, steps=n, **rows) for s in ("ddp", "fsdp") for n in (3, 5)], store, tmp_path
    )
    start(
        4,
        [Run(f"four from two {s}", s, resume="two fsdp 3", **rows) for s in ("ddp", "fsdp")],
        store,
        tmp_path,
    )
    train(Run("one from two", resume="two fsdp 3", **rows), store, tmp_path)
    train(Run("one from two ddp", resume="two ddp 3", **rows), store, tmp_path)
    one = checkpoint(tmp_path, "one")
    names = (
        "two ddp 5",
        "two fsdp 5",
        "four from two ddp",
        "four from two fsdp",
        "one from two",
        "one from two ddp",
    )
    differences = {name: largest_difference(one, checkpoint(tmp_path, name)) for name in names}
    assert max(differences.values()) < 10 * ROUNDING, differences
