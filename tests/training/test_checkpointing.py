"""When checkpoints for resuming are written; that they are complete is tested in test_resume.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pianolm.errors import UserError
from pianolm.training import checkpointing
from pianolm.training.checkpointing import KeptCheckpoint, LastCheckpoint, last_checkpoint


class FakeTrainer(SimpleNamespace):
    """A trainer of 20 steps of two micro-batches each, a validation after steps 6 and 12."""

    def __init__(self) -> None:
        super().__init__(
            global_step=0, max_steps=20, accumulate_grad_batches=2, val_check_batch=12, world_size=1
        )
        self.fit_loop = SimpleNamespace(total_batch_idx=0)
        self.sanity_checking = False
        self.saved: list[int] = []

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        self.saved.append(self.global_step)


def run(callback: Any, clock: SimpleNamespace, seconds_a_batch: float) -> list[int]:
    """Steps at which the callback saved, on a clock that the batches move."""
    trainer: Any = FakeTrainer()
    callback.on_train_start(trainer, None)
    for batch in range(40):
        clock.now += seconds_a_batch
        trainer.global_step = (batch + 1) // 2
        trainer.fit_loop.total_batch_idx = batch
        callback.on_train_batch_start(trainer, None, None, batch)
        callback.on_train_batch_end(trainer, None, None, None, batch)
        if (batch + 1) % 12 == 0:
            callback.on_validation_end(trainer, None)
    return list(trainer.saved)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only a test moves."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(checkpointing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize(
    ("every", "minutes", "expected"),
    [
        (8, None, [8, 16]),
        (None, 5, [3, 6, 9, 12, 15, 18]),
        (8, 5, [3, 6, 8, 11, 14, 16, 19]),
        (None, 20, [10]),
        (None, None, []),
    ],
)
def test_it_saves_whole_steps_by_number_and_by_time(
    every: int | None, minutes: float | None, expected: list[int], clock: SimpleNamespace
) -> None:
    """At one minute a micro-batch; a checkpoint by number starts the time again, and the last step is left out."""
    assert run(LastCheckpoint(Path("last.ckpt"), every, minutes), clock, 60) == expected


@pytest.mark.parametrize(("step", "expected"), [(6, [6]), (7, [7]), (20, [])])
def test_the_state_after_one_step_is_saved_once_and_never_that_of_the_last(
    step: int, expected: list[int], clock: SimpleNamespace
) -> None:
    """A validation follows step 6, none follows step 7."""
    assert run(KeptCheckpoint(Path("kept.ckpt"), step), clock, 60) == expected


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"every_minutes": -1}])
def test_intervals_must_be_positive(wrong: dict[str, Any]) -> None:
    context: Any = SimpleNamespace(stage=SimpleNamespace(work=Path()))
    with pytest.raises(
        UserError, match=rf"callbacks\.checkpoint\.{next(iter(wrong))}=.* expected a positive"
    ):
        last_checkpoint(context, **wrong)
