from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from pianolm.lm import loss
from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.loss import IGNORE
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.model import packing
from pianolm.lm.module import LanguageModule
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.window_reader import WindowReader
from pianolm.lm.windows import Rows
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.vocabulary import Kind
from tests.lm.toys import NOTES_PER_ID, toy_data, toy_model, toy_module, toy_trainer, whole_batch
from tests.toy_tokens import VOCABULARY, ToyPiece, sequence, write_store


def gradients(module: LanguageModule, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    module.zero_grad()
    nats, nll, _ = module.target_losses(batch)
    nats.backward()
    return nll, torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("chunk", [7, 10**6])
def test_losses_are_those_of_full_logits_at_the_labels_that_count(
    store_dir: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    _, nll, _ = module.target_losses(batch)
    logits = module.model(input_ids=batch["input_ids"], **packing(batch.get("position_ids"))).logits
    full = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE, reduction="none"
    )
    assert torch.allclose(nll, full[batch["labels"].flatten() != IGNORE], atol=1e-5)


def test_a_constrained_loss_is_over_the_ids_that_the_mask_allows(store_dir: Path) -> None:
    grammar = Grammar(VOCABULARY, velocity=True, silent=np.zeros(VOCABULARY.size, bool))
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    constrained = LanguageModule(
        module.model, module.settings, VOCABULARY.kind_of, NOTES_PER_ID, grammar=grammar
    )
    assert constrained.state_dict().keys() == module.state_dict().keys()
    counts = batch["labels"] != IGNORE
    which = MaskedTargets(grammar)(batch["input_ids"], batch["labels"], batch.get("position_ids"))[counts]
    sets = MaskedTargets(grammar).masks[which]
    logits = module.model(input_ids=batch["input_ids"], **packing(batch.get("position_ids"))).logits[counts]
    expected = torch.nn.functional.cross_entropy(
        logits.masked_fill(~sets, -torch.inf), batch["labels"][counts], reduction="none"
    )
    nats, nll, _ = constrained.target_losses(batch)
    assert torch.allclose(nll, expected, atol=1e-5)
    assert torch.isfinite(nll).all()
    assert nats < 0.8 * module.target_losses(batch).nats
    assert sets.float().mean() < 0.7


def test_masked_targets_change_neither_loss_nor_gradient(store_dir: Path, tmp_path: Path) -> None:
    """Velocity tokens of flat pieces are replaced by others where they are targets."""
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    before = gradients(module, batch)
    store = toy_data(store_dir).store
    rows = WindowIndex(store, list(range(len(store.pieces))), 32).validation()
    scrambled = np.array(store.tokens)
    for row in store.pieces:
        if row.flat:
            ids = scrambled[row.start : row.stop]
            is_velocity = VOCABULARY.kind_of[ids] == Kind.VELOCITY
            ids[is_velocity] = (
                VOCABULARY.offset(Kind.VELOCITY) + 7 - (ids[is_velocity] - VOCABULARY.offset(Kind.VELOCITY))
            )
    assert (scrambled != store.tokens).any()
    store.tokens = scrambled
    labels = WindowReader(store, 32).batch(rows, len(rows))["labels"]
    after = gradients(module, {**batch, "labels": labels})
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)


def test_padding_changes_neither_loss_nor_gradient(store_dir: Path) -> None:
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    padding = batch["input_ids"] == VOCABULARY.pad
    assert padding.any()
    before = gradients(module, batch)
    other = torch.where(padding, torch.zeros_like(batch["input_ids"]), batch["input_ids"])
    after = gradients(module, {**batch, "input_ids": other})
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_packed_rows_equal_separate_rows(tmp_path: Path, kv_heads: int) -> None:
    """Eight short pieces in few rows give the loss and gradient of eight rows."""
    store = write_store(tmp_path, [ToyPiece(sequence(seed, beats=1, most_cells=3)) for seed in range(8)])
    packed = WindowIndex(store, list(range(8)), 64).validation()
    assert len(packed) < 5
    alone = Rows(packed.windows, np.arange(9))
    module, reader = toy_module(toy_model(kv_heads=kv_heads)), WindowReader(store, 64)
    one, other = (gradients(module, reader.batch(rows, len(rows))) for rows in (packed, alone))
    assert torch.allclose(one[0], other[0], atol=1e-5)
    assert torch.allclose(one[1], other[1], atol=1e-4, rtol=1e-4)
    assert one[1].abs().max() > 0.1


class GradientCatcher(L.Callback):
    """Keeps the gradient of the first optimizer step."""

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self.gradient = torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None])


def first_gradient(store_dir: Path, micro: int | None) -> tuple[torch.Tensor, float, int]:
    data = toy_data(store_dir, max_steps=1, micro_batch_tokens=micro)
    module, catcher = toy_module(toy_model()), GradientCatcher()
    trainer = toy_trainer(
        max_steps=1, accumulate_grad_batches=data.plan.accumulate, callbacks=[catcher], limit_val_batches=0
    )
    trainer.fit(module, data)
    return catcher.gradient, float(trainer.callback_metrics["train/loss"]), module.tokens_seen


@pytest.mark.parametrize("micro", [64, 32])
def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(store_dir: Path, micro: int) -> None:
    whole, loss, seen = first_gradient(store_dir, None)
    parts, parts_loss, parts_seen = first_gradient(store_dir, micro)
    assert torch.allclose(whole, parts, atol=1e-6, rtol=1e-4)
    assert whole.abs().max() > 1e-3
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    assert parts_seen == seen


def test_the_loss_of_a_step_is_the_mean_over_its_targets(store_dir: Path) -> None:
    data = toy_data(store_dir)
    batch = next(iter(data.train_dataloader()))
    _, nll, labels = toy_module(toy_model()).target_losses(batch)
    assert labels.numel() == batch["n_targets"]
    assert first_gradient(store_dir, None)[1] == pytest.approx(float(nll.mean()), rel=1e-5)


def validated(store_dir: Path) -> tuple[LanguageModule, LMDataModule]:
    data, module = toy_data(store_dir), toy_module(toy_model())
    toy_trainer().validate(module, data, verbose=False)
    return module, data


def test_validation_metrics_are_those_of_one_pass_by_hand(store_dir: Path) -> None:
    module, data = validated(store_dir)
    nats: dict[int, list[float]] = {}
    bits = notes = 0.0
    with torch.no_grad():
        for batch in data.val_dataloader():
            for row in range(len(batch["labels"])):
                alone = {name: value[row : row + 1] for name, value in batch.items()}
                _, nll, labels = module.target_losses(alone)
                counts = alone["performance"][alone["labels"] != IGNORE].tolist()
                for value, label, counted in zip(nll.tolist(), labels.tolist(), counts, strict=True):
                    nats.setdefault(int(VOCABULARY.kind_of[label]), []).append(value)
                    if counted:
                        bits, notes = bits + value / math.log(2), notes + NOTES_PER_ID[label]
    found = module.val_metrics
    everything = [value for values in nats.values() for value in values]
    assert found["val/loss"] == pytest.approx(np.mean(everything), rel=1e-5)
    assert found["val/bits_per_note"] == pytest.approx(bits / notes, rel=1e-5)
    assert found["val/unigram_entropy"] == 5.0
    for kind in (Kind.PITCH, Kind.VELOCITY, Kind.L1, Kind.L2, Kind.L3, Kind.L4):
        assert found[f"val/loss_{kind.name.lower()}"] == pytest.approx(np.mean(nats[kind]), rel=1e-5)
    assert found["val/loss_tempo"] == pytest.approx(np.mean(nats[Kind.TEMPO] + nats[Kind.EOS]), rel=1e-5)
    codes = [value for kind in (Kind.L1, Kind.L2, Kind.L3, Kind.L4) for value in nats[kind]]
    assert found["val/loss_pattern"] == pytest.approx(np.mean(codes), rel=1e-5)


def test_the_loss_is_the_mean_of_kinds_weighted_by_their_targets(store_dir: Path) -> None:
    module, _ = validated(store_dir)
    sums = module._scorer.sums[:-1]
    assert float(sums[:, 0].sum() / sums[:, 1].sum()) == pytest.approx(module.val_metrics["val/loss"])
    named = {Kind.TEMPO, Kind.PITCH, Kind.VELOCITY, Kind.L1, Kind.L2, Kind.L3, Kind.L4, Kind.EOS}
    assert all(sums[kind, 1] == 0 for kind in Kind if kind not in named)


def test_kinds_that_do_not_occur_are_not_logged(tmp_path: Path) -> None:
    pieces = [
        ToyPiece(sequence(s, mode="base"), split=split) for s, split in [(0, "train"), (1, "validation")]
    ]
    write_store(tmp_path, pieces, mode="base")
    module, _ = validated(tmp_path)
    assert "val/loss_velocity" not in module.val_metrics
    assert "val/loss_pitch" in module.val_metrics


def test_a_tiny_model_overfits_one_batch(tmp_path: Path) -> None:
    piece = sequence(0, beats=4)
    write_store(tmp_path, [ToyPiece(piece), ToyPiece(piece, split="validation")])
    changes = {"max_steps": 60, "context": 64, "batch_tokens": 64, "lr": 3e-2, "weight_decay": 0.0}
    data, module = toy_data(tmp_path, **changes), toy_module(toy_model(width=32), **changes)
    trainer = toy_trainer(max_steps=60, val_check_interval=60, gradient_clip_val=1.0)
    trainer.fit(module, data)
    assert module.val_metrics["val/loss"] < 0.3
    assert float(trainer.callback_metrics["gradient_norm"]) > 0
    assert module.throughput.per_second > 0
    assert module.tokens_seen == 60 * min(piece.size - 1, 64)


def test_forward_gives_the_logits_of_each_window(store_dir: Path) -> None:
    module, batch = toy_module(toy_model(embedding="table")), whole_batch(store_dir)
    _, nll, labels = module.target_losses(batch)
    logits = module(batch["input_ids"], batch.get("position_ids"))
    counts = batch["labels"] != IGNORE
    expected = torch.nn.functional.cross_entropy(logits[counts], labels, reduction="none")
    assert torch.allclose(nll, expected, atol=1e-5)


def test_test_metrics_are_scored_like_validation(store_dir: Path) -> None:
    module, data = toy_module(toy_model()), toy_data(store_dir)
    (metrics,) = toy_trainer().test(module, data, verbose=False)
    nats = targets = 0.0
    with torch.no_grad():
        for batch in data.test_dataloader():
            loss = module.target_losses(batch)
            nats, targets = nats + float(loss.nats), targets + loss.labels_n.numel()
    assert metrics["test/loss"] == pytest.approx(nats / targets, rel=1e-5)
    assert metrics["test/bits_per_note"] > 0


def test_hyperparameters_load_weights_only(store_dir: Path, tmp_path: Path) -> None:
    groups = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}, "loader": {"source_weights": {}}}
    plain = toy_module(toy_model())
    module = LanguageModule(
        plain.model, plain.settings, VOCABULARY.kind_of, NOTES_PER_ID, hyperparameters=groups
    )
    trainer = toy_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(module, toy_data(store_dir, max_steps=1))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert saved["hyper_parameters"] == dict(module.hparams) == groups


@pytest.mark.parametrize("limit", [{"fast_dev_run": 2}, {"overfit_batches": 2, "max_steps": 5}])
@pytest.mark.filterwarnings(
    "ignore:You requested to overfit"
)  # Lightning takes the batches in order, as we do
def test_lightning_can_limit_the_batches(store_dir: Path, limit: dict[str, Any]) -> None:
    module = toy_module(toy_model())
    toy_trainer(**limit).fit(module, toy_data(store_dir))
    assert module.trainer.global_step == limit.get("max_steps", 2)
    assert module.val_metrics["val/loss"] > 0
