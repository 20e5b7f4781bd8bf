"""Training a language model: what a stage publishes, resuming, extending, several processes."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import LlamaForCausalLM

from pianolm import PianoTokenizer
from pianolm.errors import UserError
from pianolm.pipeline.launch import other_processes
from pianolm.report.training_log import Curves, find_runs, read_curves
from pianolm.stage import Metrics, StageContext
from pianolm.stages import base
from pianolm.training import trainer
from tests.lm.stage_toys import (
    METRICS,
    VOCABULARY,
    context,
    tokenizer,
    validated,
    weights,
)
from tests.toy_tokens import EMBEDDINGS

pytestmark = pytest.mark.usefixtures("without_curves")  # only the run of `trained` draws them


def test_base_publishes_a_model_that_transformers_reads(trained: tuple[StageContext, Metrics]) -> None:
    ctx, _ = trained
    model = LlamaForCausalLM.from_pretrained(ctx.out)
    assert model.config.vocab_size == VOCABULARY.size
    assert (model.config.bos_token_id, model.config.pad_token_id) == (VOCABULARY.bos, VOCABULARY.pad)
    assert model.config.max_position_embeddings == 32
    assert PianoTokenizer.from_pretrained(ctx.out).hashes == tokenizer().hashes
    assert not list(ctx.out.rglob("*.ckpt"))


def test_base_returns_the_metrics_of_the_design(trained: tuple[StageContext, Metrics]) -> None:
    ctx, metrics = trained
    assert set(metrics) >= METRICS
    assert "val/loss_velocity" not in metrics
    model = LlamaForCausalLM.from_pretrained(ctx.out)
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["resumed_from_step"] == 0
    slots = 6 * 4 * 32
    assert metrics["tokens_seen"] == pytest.approx(slots * (1 - float(metrics["train/padding_fraction"])))
    json.dumps(metrics)


def test_val_metrics_are_those_of_the_published_weights(
    trained: tuple[StageContext, Metrics], tokens: Path
) -> None:
    ctx, metrics = trained
    assert metrics["val/loss"] == pytest.approx(validated(ctx, tokens), rel=1e-4)


def test_the_same_seed_gives_the_same_weights(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    again = context(tmp_path, "base", {"tokens": tokens})
    base.run(again)
    for name, value in weights(trained[0]).items():
        assert torch.equal(value, weights(again)[name])


class KilledError(Exception):
    """Stands for a process that ends in the middle."""


class KillAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


@pytest.mark.parametrize(
    ("embedding", "optimizer"),
    [
        *(pytest.param(embedding, "adamw", marks=pytest.mark.slow) for embedding in EMBEDDINGS),
        ("codebook", "muon"),  # an optimizer that is two, over the embedding with weights of its own
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    embedding: str, optimizer: str, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "model": {"dropout": 0.1, "embedding": embedding},
        "training": {"micro_batch_tokens": 64, "name": optimizer},
    }
    unbroken = context(tmp_path / "unbroken", "base", {"tokens": tokens}, **changes)
    expected = base.run(unbroken)
    broken = context(tmp_path / "broken", "base", {"tokens": tokens}, **changes)
    plain = trainer._callbacks
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_callbacks", lambda *given: [*plain(*given), KillAfter(4)])
        with pytest.raises(KilledError):
            base.run(broken)
    resumed = dataclasses.replace(broken, run_dir=tmp_path / "second run")
    metrics = base.run(resumed)
    assert metrics["resumed_from_step"] == 4
    assert metrics["tokens_seen"] == expected["tokens_seen"]
    assert metrics["val/loss"] == expected["val/loss"]
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(broken)[name]), name
    whole, joined = curves(unbroken), curves(resumed)
    assert joined.resumed_at == [4]
    for name in ("train/loss", "train/loss_pitch", "val/loss", "tokens_seen", "gradient_norm"):
        assert np.array_equal(joined.columns[name], whole.columns[name]), name


def curves(ctx: StageContext) -> Curves:
    """What the loggers of a run directory hold."""
    return read_curves(find_runs(ctx.run_dir)[ctx.run_dir][ctx.name])


def test_loggers_and_a_picture_show_the_course_of_training(trained: tuple[StageContext, Metrics]) -> None:
    ctx, metrics = trained
    columns = curves(ctx).columns
    for name in (
        *("train/loss", "train/loss_tempo", "train/loss_pitch", "train/loss_pattern", "train/bits_per_note"),
        *("learning_rate", "gradient_norm", "memory_mb", "tokens_seen", "train/padding_fraction"),
    ):
        assert columns[name][0].tolist() == [1, 2, 3, 4, 5, 6], name
    assert columns["train/tokens_per_second"][0].tolist() == [2, 3, 4, 5, 6], "the first step warms up"
    assert columns["val/loss_pitch"][0].tolist() == [3, 6]
    assert columns["tokens_seen"][1][-1] == metrics["tokens_seen"]
    assert (ctx.run_dir / "curves_base.png").is_file()


def test_a_finished_run_extended_is_the_longer_run(tokens: Path, tmp_path: Path) -> None:
    """With a constant learning rate, six steps and six more are twelve steps, to the last bit."""
    constant = {"min_lr_fraction": 1.0, "warmup_steps": 0}
    long = context(tmp_path / "long", "base", {"tokens": tokens}, training={**constant, "max_steps": 12})
    expected = base.run(long)
    short = context(tmp_path / "short", "base", {"tokens": tokens}, training={**constant, "max_steps": 6})
    base.run(short)
    checkpoint = short.work / "last.ckpt"
    more = context(
        tmp_path / "more",
        "base",
        {"tokens": tokens},
        training={**constant, "max_steps": 12},
        resume=str(checkpoint),
    )
    metrics = base.run(more)
    assert metrics["resumed_from_step"] == 6
    assert metrics["tokens_seen"] == expected["tokens_seen"]
    states = [torch.load(ctx.work / "last.ckpt", weights_only=True)["state_dict"] for ctx in (long, more)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_a_run_goes_on_from_before_its_decay_as_if_it_had_been_longer(
    optimizer: str, tokens: Path, tmp_path: Path
) -> None:
    """The short run decays in its steps 7 and 8, the long one in its last three."""
    wsd = {"name": optimizer, "schedule": "wsd", "decay_fraction": 0.25}
    long = context(tmp_path / "long", "base", {"tokens": tokens}, training={**wsd, "max_steps": 12})
    expected = base.run(long)
    short = context(tmp_path / "short", "base", {"tokens": tokens}, training={**wsd, "max_steps": 8})
    base.run(short)
    more = context(
        tmp_path / "more",
        "base",
        {"tokens": tokens},
        training={**wsd, "max_steps": 12},
        resume=str(short.work),
    )
    metrics = base.run(more)
    assert metrics["resumed_from_step"] == 6
    assert metrics["tokens_seen"] == expected["tokens_seen"]
    for file in ("before_decay.ckpt", "last.ckpt"):
        one, other = (torch.load(ctx.work / file, weights_only=True) for ctx in (long, more))
        assert one["global_step"] == other["global_step"] == (9 if file == "before_decay.ckpt" else 12)
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_equal(one[part], other[part])


def assert_equal(one: Any, other: Any) -> None:
    """Equal to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_equal(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_run_is_not_extended_by_another_optimizer(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    changes = {"resume": str(trained[0].work), "training": {"max_steps": 9, "name": "muon"}}
    with pytest.raises(
        UserError, match=r"trained with optimizer\.name=adamw, but optimizer\.name=muon is asked"
    ):
        base.run(context(tmp_path, "base", {"tokens": tokens}, **changes))


@pytest.mark.slow
@pytest.mark.parametrize(("embedding", "optimizer"), [*product(EMBEDDINGS, ["adamw"]), ("codebook", "muon")])
def test_two_processes_take_the_steps_that_one_takes(
    embedding: str, optimizer: str, tokens: Path, tmp_path: Path
) -> None:
    """Weights move by about a thousandth a step and differ by 1e-5 at most; Muon rounds matrices to 16 bits."""
    states, losses = [], []
    steps = {"max_steps": 3, "transpose": 4, "lr": 1e-3, "adamw_lr": 1e-3}
    for processes in (1, 2):
        ctx = context(
            tmp_path / str(processes),
            "base",
            {"tokens": tokens},
            model={"embedding": embedding},
            training={**steps, "name": optimizer, "devices": processes},
            compute={"threads": 1},
        )
        with other_processes(ctx):
            metrics = base.run(ctx)
        states.append(weights(ctx))
        losses.append(metrics["val/loss"])
    for name, one in states[0].items():
        assert torch.allclose(one, states[1][name], atol=1e-5, rtol=0), name
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "trained for 6 steps already, and 6 are asked for; give a larger trainer.max_steps"),
        ({"training": {"max_steps": 9}, "model": {"ffn": 64}}, "give the settings it was trained with"),
        (
            {"training": {"max_steps": 9}, "tokenizer": {"ties": "implicit"}},
            "trained with tokenizer.ties=repeat, but tokenizer.ties=implicit is asked for",
        ),
        (
            {"training": {"max_steps": 9, "constrained": True}},
            "trained with loss.constrained=False, but loss.constrained=True is asked for",
        ),
        ({"resume": "nowhere"}, "resume=nowhere: no checkpoint nowhere; expected auto, never"),
        ({"resume": __file__}, "not a checkpoint of pianolm"),
    ],
)
def test_a_run_that_cannot_be_extended_is_one_sentence(
    trained: tuple[StageContext, Metrics],
    tokens: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    given = {"resume": str(trained[0].work / "last.ckpt"), **changes}
    with pytest.raises(UserError, match=message):
        base.run(context(tmp_path, "base", {"tokens": tokens}, **given))


def test_a_run_of_another_network_is_one_sentence(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    saved = torch.load(trained[0].work / "last.ckpt", weights_only=True)
    name = next(name for name in saved["state_dict"] if name.endswith("embed_tokens.weight"))
    saved["state_dict"][name] = saved["state_dict"][name][:, 1:]
    torch.save(saved, tmp_path / "other.ckpt")
    changes = {"resume": str(tmp_path / "other.ckpt"), "training": {"max_steps": 9}}
    with pytest.raises(UserError, match=r"embed_tokens\.weight found with shape .* made by another version"):
        base.run(context(tmp_path, "base", {"tokens": tokens}, **changes))


def test_a_constrained_loss_is_lower_and_noted_in_the_config(
    trained: tuple[StageContext, Metrics], tokens: Path, tmp_path: Path
) -> None:
    ctx = context(tmp_path / "a", "base", {"tokens": tokens}, training={"constrained": True})
    assert base.run(ctx)["val/loss"] < trained[1]["val/loss"] - 0.1
    for directory, says in ((ctx.out, True), (trained[0].out, False)):
        assert json.loads((directory / "config.json").read_text()).get("constrained_loss", False) == says


def test_early_stopping_stops_a_run_that_gets_worse(tokens: Path, tmp_path: Path) -> None:
    training = {"max_steps": 40, "val_check_interval": 2, "lr": 3.0, "gradient_clip_val": None}
    entry = {
        "_target_": "pianolm.training.checkpointing.early_stopping",
        "_partial_": True,
        "patience": 2,
    }
    ctx = context(
        tmp_path, "base", {"tokens": tokens}, training=training, callbacks={"early_stopping": entry}
    )
    metrics = base.run(ctx)
    assert 4 <= torch.load(ctx.work / "last.ckpt", weights_only=True)["global_step"] < 40
    assert metrics["val/loss"] < 60  # of the first validation, the best
    entry = {**entry, "patience": 0}
    with pytest.raises(UserError, match=r"patience=0 found, expected at least 1"):
        base.run(context(tmp_path / "b", "base", {"tokens": tokens}, callbacks={"early_stopping": entry}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler warns about itself
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # it asks, and hides the answer
def test_a_compiled_run_equals_a_plain_one(tokens: Path, tmp_path: Path) -> None:
    plain, compiled = (
        context(
            tmp_path / str(compiled),
            "base",
            {"tokens": tokens},
            model={"embedding": "codebook", "compile": compiled},
        )
        for compiled in (False, True)
    )
    assert base.run(compiled)["val/loss"] == pytest.approx(base.run(plain)["val/loss"], rel=1e-3)
    assert weights(compiled).keys() == weights(plain).keys()
