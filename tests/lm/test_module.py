from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm import loss
from pianolm.lm.datamodule import LMDataModule
from pianolm.lm.loss import IGNORE
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.model import build_llama, count_parameters, packing
from pianolm.lm.module import LanguageModule
from pianolm.lm.optimizer import OptimizerSettings, parameter_groups
from pianolm.lm.windows import Rows, WindowIndex, WindowReader, pack
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.tiny import composed
from tests.toy_tokens import MODEL, VOCABULARY, ToyPiece, sequence, settings, write_store

CONF = Path(__file__).parents[2] / "conf" / "model"
STRIKES = np.random.default_rng(0).integers(0, 3, VOCABULARY.size)


def toy_model(seed: int = 0, tied: bool = True, **changes: object) -> LlamaForCausalLM:
    """A small model; with `tied=False`, as an import may be, its output layer has weights of its own."""
    torch.manual_seed(seed)
    v = VOCABULARY
    model = build_llama({**MODEL, **changes}, v.size, v.pad, v.bos, v.eos, 32)
    if tied:
        return model
    model.config.tie_word_embeddings = False
    return LlamaForCausalLM(model.config)


def toy_module(model: LlamaForCausalLM, **changes: object) -> LanguageModule:
    optimizer = OptimizerSettings.from_config(settings(**changes))
    return LanguageModule(model, optimizer, VOCABULARY.kind_of, STRIKES, unigram_entropy=5.0)


@pytest.fixture
def store_dir(tmp_path: Path) -> Path:
    pieces = [ToyPiece(sequence(seed, beats=10), flat=seed == 1) for seed in range(4)]
    pieces += [ToyPiece(sequence(10, beats=9), split="validation")]
    pieces += [ToyPiece(sequence(11, beats=9), split="validation", kind="score", flat=True)]
    return write_store(tmp_path / "tokens", pieces).directory


def toy_trainer(**options: Any) -> L.Trainer:
    plain = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
    }
    return L.Trainer(**{**plain, **options})


def whole_batch(store_dir: Path, context: int = 32) -> dict[str, Any]:
    """All windows, validation's too, with padding, masks of flat pieces and of targets scored before."""
    store = LMDataModule(store_dir, settings(context=context), 0).store
    rows = WindowIndex(store, list(range(len(store.pieces))), context).validation()
    return WindowReader(store, context).batch(rows, len(rows))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("tiny", 1_105_408), ("small", 12_460_800), ("medium", 88_631_808), ("large", 303_798_272)],
)
def test_sizes_are_those_written_in_the_config(name: str, parameters: int) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    vocabulary = Vocabulary()
    with torch.device("meta"):
        v = vocabulary
        features = np.zeros((v.size, 9), np.float32)
        model = build_llama(composed(f"model={name}")["model"], v.size, v.pad, v.bos, v.eos, 512, features)
    assert count_parameters(model) == parameters
    assert f"# {parameters:,} parameters with a vocabulary of {vocabulary.size} ids" in text


def test_every_model_config_is_covered_here() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {"tiny", "small", "medium", "large"}


def test_what_adds_to_the_residual_stream_begins_smaller_the_deeper_the_model_is() -> None:
    for layers in (2, 8):
        torch.manual_seed(0)
        model = build_llama({**MODEL, "layers": layers, "width": 64, "ffn": 128}, 50, 0, 1, 2, 32)
        std = model.config.initializer_range
        for number, layer in enumerate(model.model.layers):
            for adds in (*([layer.self_attn.o_proj] if number else []), layer.mlp.down_proj):
                assert adds.weight.std().item() == pytest.approx(std / (2 * layers) ** 0.5, rel=0.1)
            for other in (layer.self_attn.q_proj, layer.mlp.up_proj):
                assert other.weight.std().item() == pytest.approx(std, rel=0.1)


def test_a_model_reads_no_token_after_the_target() -> None:
    model = toy_model()
    ids = torch.from_numpy(sequence(0, beats=8)[:24])[None]
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    logits[0, 10].sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[0, 11:] == 0).all()
    assert (embedded.grad[0, :11] != 0).any(dim=1).all()


def gradients(module: LanguageModule, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    module.zero_grad()
    nats, nll, _ = module.target_nll(batch)
    nats.backward()
    return nll, torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("chunk", [7, 10**6])
def test_only_labels_that_count_make_loss_and_they_are_those_of_the_full_logits(
    store_dir: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    _, nll, _ = module.target_nll(batch)
    logits = module.model(input_ids=batch["input_ids"], **packing(batch.get("position_ids"))).logits
    full = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE, reduction="none"
    )
    assert torch.allclose(nll, full[batch["labels"].flatten() != IGNORE], atol=1e-5)


def test_under_the_grammar_a_target_is_one_among_those_that_may_come(store_dir: Path) -> None:
    grammar = Grammar(VOCABULARY, velocity=True, silent=np.zeros(VOCABULARY.size, bool))
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    under = LanguageModule(module.model, module.settings, VOCABULARY.kind_of, STRIKES, grammar=grammar)
    assert under.state_dict().keys() == module.state_dict().keys()
    counts = batch["labels"] != IGNORE
    which = MaskedTargets(grammar)(batch["input_ids"], batch["labels"], batch.get("position_ids"))[counts]
    sets = MaskedTargets(grammar).masks[which]
    logits = module.model(input_ids=batch["input_ids"], **packing(batch.get("position_ids"))).logits[counts]
    expected = torch.nn.functional.cross_entropy(
        logits.masked_fill(~sets, -torch.inf), batch["labels"][counts], reduction="none"
    )
    nats, nll, _ = under.target_nll(batch)
    assert torch.allclose(nll, expected, atol=1e-5)
    assert torch.isfinite(nll).all()
    assert nats < 0.8 * module.target_nll(batch).nats
    assert sets.float().mean() < 0.7


def test_masked_targets_change_neither_loss_nor_gradient(store_dir: Path, tmp_path: Path) -> None:
    """The velocity tokens of a flat piece are scrambled in the last place where they could tell: as targets."""
    module, batch = toy_module(toy_model()), whole_batch(store_dir)
    before = gradients(module, batch)
    store = LMDataModule(store_dir, settings(), 0).store
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
def test_packed_and_unpacked_pieces_give_the_same_loss_and_gradient(tmp_path: Path, kv_heads: int) -> None:
    """Eight short pieces in few rows, and each in a row of its own; to a hundred-thousandth."""
    store = write_store(tmp_path, [ToyPiece(sequence(seed, beats=1, most_cells=3)) for seed in range(8)])
    packed = WindowIndex(store, list(range(8)), 64).validation()
    assert len(packed) < 5
    alone = Rows(packed.windows, np.arange(9))
    module, reader = toy_module(toy_model(kv_heads=kv_heads)), WindowReader(store, 64)
    one, other = (gradients(module, reader.batch(rows, len(rows))) for rows in (packed, alone))
    assert torch.allclose(one[0], other[0], atol=1e-5)
    assert torch.allclose(one[1], other[1], atol=1e-4, rtol=1e-4)
    assert one[1].abs().max() > 0.1


def test_no_window_of_a_packed_row_hears_another(tmp_path: Path) -> None:
    """By zero gradient: the loss of the second window does not depend on what the first one holds."""
    store = write_store(tmp_path, [ToyPiece(sequence(seed, beats=1)) for seed in range(2)])
    rows = pack(WindowIndex(store, [0, 1], 256).validation().windows, 256)
    batch, model = WindowReader(store, 256).batch(rows, 1), toy_model()
    first = int(rows.windows.inputs[0])
    embedded = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    hidden = model.model(inputs_embeds=embedded, **packing(batch["position_ids"])).last_hidden_state
    hidden[0, first + 3].sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[0, :first] == 0).all()
    assert (embedded.grad[0, first : first + 4] != 0).any(dim=1).all()


class GradientCatcher(L.Callback):
    """Keeps the gradient of the first optimizer step."""

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self.gradient = torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None])


def first_gradient(store_dir: Path, micro: int | None) -> tuple[torch.Tensor, float, int]:
    data = LMDataModule(store_dir, settings(max_steps=1, micro_batch_tokens=micro), 0)
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
    data = LMDataModule(store_dir, settings(), 0)
    batch = next(iter(data.train_dataloader()))
    _, nll, labels = toy_module(toy_model()).target_nll(batch)
    assert labels.numel() == batch["n_targets"]
    assert first_gradient(store_dir, None)[1] == pytest.approx(float(nll.mean()), rel=1e-5)


def validated(store_dir: Path) -> tuple[LanguageModule, LMDataModule]:
    data, module = LMDataModule(store_dir, settings(), 0), toy_module(toy_model())
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
                _, nll, labels = module.target_nll(alone)
                counts = alone["performance"][alone["labels"] != IGNORE].tolist()
                for value, label, counted in zip(nll.tolist(), labels.tolist(), counts, strict=True):
                    nats.setdefault(int(VOCABULARY.kind_of[label]), []).append(value)
                    if counted:
                        bits, notes = bits + value / math.log(2), notes + STRIKES[label]
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


def test_losses_of_kinds_weighted_by_their_targets_make_the_loss(store_dir: Path) -> None:
    module, _ = validated(store_dir)
    sums = module._losses.sums[:-1]
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


def test_matrices_decay_and_nothing_else() -> None:
    for tied in (True, False):
        model = toy_model(tied=tied)
        decayed, plain = parameter_groups(model, OptimizerSettings.from_config(settings()))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
        assert {names[id(p)].split(".")[-2] for p in plain["params"]} == {
            "embed_tokens",
            "input_layernorm",
            "post_attention_layernorm",
            "norm",
        }
        assert len(decayed["params"]) + len(plain["params"]) == len(names)
        assert ("lm_head.weight" in {names[id(p)] for p in decayed["params"]}) is not tied


def test_learning_rate_warms_up_and_ends_at_the_floor() -> None:
    schedule = OptimizerSettings.from_config(settings(max_steps=100, warmup_steps=10))
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert (np.diff(factors[10:]) <= 0).all()
    assert factors[99] == schedule.factor(500) == pytest.approx(0.1)
    short = OptimizerSettings.from_config(settings(max_steps=4, warmup_steps=1000))
    assert max(short.factor(step) for step in range(4)) == 1.0
    assert OptimizerSettings.from_config(settings(max_steps=1)).factor(0) == 1.0


def test_optimizer_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(UserError, match=r"optimizer.lr=0, optimizer.betas=\[0.9\] out of range"):
        OptimizerSettings.from_config(settings(lr=0, betas=[0.9]))


def test_a_tiny_model_learns_a_batch_by_heart(tmp_path: Path) -> None:
    piece = sequence(0, beats=4)
    write_store(tmp_path, [ToyPiece(piece), ToyPiece(piece, split="validation")])
    changes = {"max_steps": 60, "context": 64, "batch_tokens": 64, "lr": 3e-2, "weight_decay": 0.0}
    data, module = LMDataModule(tmp_path, settings(**changes), 0), toy_module(toy_model(width=32), **changes)
    trainer = toy_trainer(max_steps=60, val_check_interval=60, gradient_clip_val=1.0)
    trainer.fit(module, data)
    assert module.val_metrics["val/loss"] < 0.3
    assert float(trainer.callback_metrics["gradient_norm"]) > 0
    assert module.throughput.per_second > 0
    assert module.tokens_seen == 60 * min(piece.size - 1, 64)
