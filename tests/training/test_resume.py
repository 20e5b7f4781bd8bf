"""A run that is broken off goes on exactly: bit by bit what an unbroken run would have made."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from pianolm.errors import UserError
from pianolm.pipeline import graph
from pianolm.run import execute
from pianolm.signals import STOP, StoppedBySignalError
from pianolm.training import trainer as training
from pianolm.training.checkpointing import AtomicCheckpointIO
from tests.experiment import load
from tests.tiny import composed

killing, runs = load("exact-resume/killing.py"), load("exact-resume/runs.py")
comparison = load("exact-resume/comparison.py")
CASES, SHARED = runs.CASES, runs.SHARED
build_upstream, places = runs.build_upstream, runs.places
differences, other_course = comparison.differences, comparison.other_course

pytestmark = [
    pytest.mark.filterwarnings("ignore:Experiment logs directory"),
    pytest.mark.usefixtures("without_curves"),
]

STEPS = 6
BATCHES = 4
"""Micro-batches a step: windows of 64 tokens one by one."""

EARLY = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1")
SHORT = (
    f"base.trainer.max_steps={STEPS}",
    "base.trainer.val_check_interval=4",
    "base.loader.micro_batch_tokens=64",
    "callbacks.checkpoint.every_n_steps=2",
    "stage=base",
)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts that stage base needs."""
    return build_upstream(tmp_path_factory.mktemp("upstream"), "tokenize", "tokenizer=base")


@pytest.fixture(scope="module")
def whole(upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an unbroken run."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(upstream, root / "artifacts")
    train(root)
    return root


def train(root: Path, *overrides: str) -> dict[str, Any]:
    number = len(list(root.glob("run*")))
    return execute(composed(*SHARED, *SHORT, *places(root), *overrides), root / f"run{number}")


def made(root: Path) -> Path:
    """The model that was published below a directory."""
    (found,) = (p for p in (root / "artifacts/base").iterdir() if not p.name.startswith("."))
    return found


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


class BrokenOffError(Exception):
    """Stands for a process that ends."""


class At(Callback):
    """Does something at a batch (counted from 0), or in the validation after a step."""

    def __init__(self, batch: int | None = None, validation: int | None = None) -> None:
        self.batch, self.validation = batch, validation

    def act(self, *args: Any) -> None:
        raise BrokenOffError

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            self.act()

    def on_validation_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.validation:
            self.act()


class FullDiskFrom(At):
    """From here on no file of this process grows beyond 100 kB, a tenth of a checkpoint."""

    def act(self, *args: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class SignalAt(At):
    """Sends this process a signal, once."""

    def __init__(self, signum: int, batch: int | None = None, validation: int | None = None) -> None:
        super().__init__(batch, validation)
        self.signum = signum

    def act(self, *args: Any) -> None:
        if not STOP.received:
            os.kill(os.getpid(), self.signum)


@pytest.fixture
def handled_signals() -> Iterator[None]:
    """Signals are handled as on the command line."""
    STOP.install()
    yield
    STOP.uninstall()


@contextmanager
def doing(callback: Callback) -> Iterator[None]:
    plain = training._callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_callbacks", lambda *given: [callback, *plain(*given)])
        yield


def test_it_goes_on_exactly_wherever_it_was_broken_off(whole: Path, upstream: Path, tmp_path: Path) -> None:
    """Before the first checkpoint, in validations with a checkpoint and at the end, twice within one step."""
    shutil.copytree(upstream, tmp_path / "artifacts")
    breaks = {
        At(batch=1): 0,
        At(validation=4): 2,
        At(batch=4 * BATCHES + 2): 4,
        At(batch=4 * BATCHES + 1): 4,
        At(validation=6): 4,
    }
    for at, resumed in breaks.items():
        with doing(at), pytest.raises(BrokenOffError):
            train(tmp_path)
        last = tmp_path / "work" / "base" / made(whole).name / "last.ckpt"
        assert (step_of(last) if last.is_file() else 0) == resumed
    assert train(tmp_path)["resumed_from_step"] == 4
    assert list(differences(made(whole), made(tmp_path))) == []
    assert list(other_course(whole, tmp_path)) == []


@pytest.mark.usefixtures("handled_signals")
def test_a_signal_saves_the_step_and_the_same_command_goes_on_exactly(
    whole: Path, upstream: Path, tmp_path: Path
) -> None:
    """In the first micro-batch of a step, in a validation, in the last step and in the last validation."""
    shutil.copytree(upstream, tmp_path / "artifacts")
    last = tmp_path / "work" / "base" / made(whole).name / "last.ckpt"
    signals = {
        SignalAt(signal.SIGTERM, batch=2 * BATCHES): 3,
        SignalAt(signal.SIGINT, validation=4): 4,
        SignalAt(signal.SIGUSR1, batch=4 * BATCHES + 1): 5,
        SignalAt(signal.SIGTERM, validation=6): 6,
    }
    for at, step in signals.items():
        STOP.install()
        with doing(at), pytest.raises(StoppedBySignalError) as caught:
            train(tmp_path)
        name = signal.Signals(at.signum).name
        assert caught.value.sentence == (
            f"base: ended by {name}; step {step} is saved in {last}; the same command continues from there"
        )
        assert step_of(last) == step
    STOP.install()
    assert train(tmp_path)["resumed_from_step"] == STEPS
    assert list(differences(made(whole), made(tmp_path))) == []
    assert list(other_course(whole, tmp_path)) == []


@pytest.mark.usefixtures("handled_signals")
def test_a_signal_before_the_first_step_says_that_nothing_was_saved(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(upstream, tmp_path / "artifacts")
    monkeypatch.setattr(training, "require", SignalAt(signal.SIGTERM).act)
    with pytest.raises(StoppedBySignalError) as caught:
        train(tmp_path)
    assert caught.value.sentence == (
        "base: ended by SIGTERM; nothing of this stage was saved; the same command starts this stage again"
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_ends_the_command_with_143_and_all_processes_save_the_same_step(
    processes: int, upstream: Path, tmp_path: Path
) -> None:
    """Process 0 alone gets the signal; all have ended when it ends."""
    shutil.copytree(upstream, tmp_path / "artifacts")
    case = runs.Case("base", processes, ("base.loader.micro_batch_tokens=64",))
    with runs.Run(case.overrides(2000), tmp_path) as run:
        assert run.wait_for(lambda line: line.step >= 3), run.text
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 143, run.text
        assert run.orphans() == []
    (work,) = (tmp_path / "work" / "base").iterdir()
    step = step_of(work / "last.ckpt")
    assert step >= 3
    assert run.output[-1] == (
        f"pianolm: base: ended by SIGTERM; step {step} is saved in {work / 'last.ckpt'}; the same command continues "
        "from there"
    )
    assert "Traceback" not in run.text


@pytest.mark.parametrize(
    "setting", [(), (*EARLY, "base.optimizer.lr=1e-12", "base.trainer.val_check_interval=2")]
)
def test_a_run_killed_while_it_publishes_publishes_the_same(
    setting: tuple[str, ...], whole: Path, upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained again, also where training had stopped early: the state of the last step is there."""
    broken = tmp_path / "broken"
    shutil.copytree(upstream, broken / "artifacts")
    if setting:
        whole = tmp_path / "whole"
        shutil.copytree(upstream, whole / "artifacts")
        train(whole, *setting)
    with monkeypatch.context() as patch:
        patch.setattr(graph, "write_record", At().act)
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # a killed process does not tidy up
        with pytest.raises(BrokenOffError):
            train(broken, *setting)
    assert list((broken / "artifacts/base").glob(".*.partial"))
    assert train(broken, *setting)["resumed_from_step"] == (4 if EARLY[0] in setting else STEPS)
    assert not list((broken / "artifacts/base").glob(".*.partial"))
    assert list(differences(made(whole), made(broken))) == []
    assert list(other_course(whole, broken)) == []


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(
    whole: Path, upstream: Path, tmp_path: Path
) -> None:
    """Files that must not grow stand for the disk: the system refuses the write in the middle."""
    shutil.copytree(upstream, tmp_path / "artifacts")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with doing(FullDiskFrom(batch=3 * BATCHES)), pytest.raises(UserError) as caught:
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    work = tmp_path / "work" / "base" / made(whole).name
    message = str(caught.value)
    assert message.startswith(
        f"{work / 'best' / '4.ckpt'}: this checkpoint could not be written (File too large)"
    )
    assert "free some space and run the same command again" in message
    assert "\n" not in message
    assert step_of(work / "last.ckpt") == 2
    assert not list(tmp_path.rglob("*.partial"))
    assert train(tmp_path)["resumed_from_step"] == 2
    assert list(differences(made(whole), made(tmp_path))) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_no_space_left_on_the_device_is_one_sentence(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, target)
    (tmp_path / ".last.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(
        UserError, match=r"last\.ckpt: .*\(No space left on device\); the previous one is complete"
    ):
        writer.save_checkpoint({"step": 2, "weights": torch.zeros(100_000)}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_cannot_be_saved_for_another_reason_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        AtomicCheckpointIO().save_checkpoint({"step": lambda: 1}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # two processes; `test_it_goes_on_exactly_wherever_it_was_broken_off` does the same within this one
def test_a_killed_process_goes_on_exactly(whole: Path, upstream: Path, tmp_path: Path) -> None:
    """The unbroken run is made in this process, so that no more than two have to start."""
    case, reference = runs.Case("base", 1, SHORT), killing.Reference(whole, made(whole))
    outcome = killing.train_with_kills(case, reference, upstream, tmp_path, kills=1, seed=1, steps=STEPS)
    assert sum(outcome.kills.values()) == 1
    assert outcome.differences == []
    assert outcome.leftovers == []


@pytest.fixture(scope="module")
def all_upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_upstream(tmp_path_factory.mktemp("all_upstream"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_three_kills_change_nothing(name: str, all_upstream: Path, tmp_path: Path) -> None:
    case, steps = CASES[name], 90
    reference = killing.uninterrupted(case, all_upstream, tmp_path / "uninterrupted", steps)
    outcome = killing.train_with_kills(
        case, reference, all_upstream, tmp_path / "killed", kills=3, seed=2, steps=steps
    )
    assert sum(outcome.kills.values()) == 3
    assert outcome.differences == []
    assert outcome.leftovers == []
