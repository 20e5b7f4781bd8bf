"""Computed embeddings: exact gradients, one table a step, an ordinary Llama at the end, warm starts of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm import loss
from pianolm.lm.checkpoint import load_weights
from pianolm.lm.embedding import CodebookEmbedding, SharedOutput, current_table, write_table
from pianolm.lm.loss import IGNORE
from pianolm.lm.model import build_llama, count_parameters, packing
from pianolm.lm.optimizer import parameter_groups
from pianolm.tokenizer.vocabulary import Kind
from tests.lm.toys import toy_data, toy_module, toy_optimizer, toy_trainer, whole_batch
from tests.toy_tokens import EMBEDDINGS, MODEL, VOCABULARY

WIDTH, SIZE, FEATURES = MODEL["width"], VOCABULARY.size, 12
IDS = torch.arange(24)[None]


def unit_features(seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(SIZE, FEATURES)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def toy_model(seed: int = 0, learned: bool = True, **changes: object) -> LlamaForCausalLM:
    """A model with a codebook embedding, its free part no longer zero unless `learned` is False."""
    torch.manual_seed(seed)
    given = {**MODEL, "embedding": "codebook", **changes}
    v = VOCABULARY
    model = build_llama(given, v.size, v.pad, v.bos, v.eos, 32, unit_features())
    embedding = model.get_input_embeddings()
    if learned and isinstance(embedding, CodebookEmbedding):
        torch.nn.init.normal_(embedding.free, std=0.02)
    return model


def computed(model: LlamaForCausalLM) -> CodebookEmbedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, CodebookEmbedding)
    return embedding


def logits(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def gradients(model: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    toy_module(model).target_losses(batch)[0].sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_fresh_table_is_as_wide_as_a_fresh_plain_one() -> None:
    table, plain = (
        current_table(m).detach() for m in (toy_model(learned=False), toy_model(embedding="table"))
    )
    assert table.shape == plain.shape == (SIZE, WIDTH)
    assert float(table.std()) == pytest.approx(float(plain.std()), rel=0.2)


def test_like_features_make_like_rows() -> None:
    table = current_table(toy_model(learned=False)).detach()
    features = torch.from_numpy(unit_features())
    wanted, found = (torch.nn.functional.normalize(x) for x in (features, table))
    both = np.corrcoef((wanted @ wanted.T).flatten(), (found @ found.T).flatten())
    assert both[0, 1] > 0.7


def test_the_published_model_is_an_ordinary_llama_with_equal_logits(tmp_path: Path) -> None:
    model = toy_model()
    before, parameters = logits(model), count_parameters(model)
    write_table(model)
    assert torch.allclose(logits(model), before, atol=1e-6)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(logits(loaded), before, atol=1e-6)
    assert type(loaded.get_input_embeddings()) is torch.nn.Embedding
    assert count_parameters(model) == count_parameters(loaded) == parameters
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight


def test_writing_the_table_of_a_plain_model_leaves_it_alone() -> None:
    model = toy_model(embedding="table")
    embedding = model.get_input_embeddings()
    write_table(model)
    assert model.get_input_embeddings() is embedding


def test_gradients_of_projection_and_free_part_follow_from_that_of_the_table(store_dir: Path) -> None:
    """Compared with a plain model that has the same table."""
    batch, model, plain = whole_batch(store_dir), toy_model(), toy_model()
    write_table(plain)
    expected, found = gradients(plain, batch), gradients(model, batch)
    table_VD = expected.pop("model.embed_tokens.weight")
    features_VF = torch.from_numpy(unit_features())
    free_VD, projection_DF = (
        found.pop(f"model.embed_tokens.{name}") for name in ("free", "projection.weight")
    )
    assert torch.allclose(free_VD, table_VD, atol=1e-4)
    assert torch.allclose(projection_DF, table_VD.T @ features_VF, atol=1e-4)
    assert projection_DF.abs().max() > 0.1
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.allclose(value, expected[name], atol=1e-4), name


@pytest.mark.parametrize("chunk", [7, 10**6])
def test_the_table_is_computed_once_a_step_and_the_loss_equals_that_of_full_logits(
    store_dir: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    model, batch = toy_model(), whole_batch(store_dir)
    calls, table = [], CodebookEmbedding.table
    monkeypatch.setattr(CodebookEmbedding, "table", lambda self: calls.append(1) or table(self))
    _, nll, labels = toy_module(model).target_losses(batch)
    assert len(calls) == 1
    full = model(input_ids=batch["input_ids"], **packing(batch.get("position_ids"))).logits
    counts = batch["labels"] != IGNORE
    expected = torch.nn.functional.cross_entropy(full[counts], labels, reduction="none")
    assert torch.allclose(nll, expected, atol=1e-5)


def test_in_bf16_the_table_keeps_its_precision(store_dir: Path) -> None:
    model, batch = toy_model(), whole_batch(store_dir)
    exact = toy_module(model).target_losses(batch).nll_n
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(computed(model).table(), current_table(model))
        assert computed(model).table().dtype == torch.float32
        nats, nll, _ = toy_module(model).target_losses(batch)
    assert torch.allclose(nll, exact, atol=0.1)
    nats.backward()
    assert computed(model).projection.weight.grad.dtype == torch.float32


def test_the_features_are_no_part_of_what_is_saved() -> None:
    names = set(toy_model().state_dict())
    assert {"model.embed_tokens.free", "model.embed_tokens.projection.weight"} <= names
    assert not {name for name in names if "features" in name or "lm_head" in name}


def test_a_codebook_embedding_does_not_decay() -> None:
    model, schedule = toy_model(), toy_optimizer()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, not_decayed = parameter_groups(model, schedule)
    assert not_decayed["weight_decay"] == 0
    found = {names[id(p)] for p in not_decayed["params"]}
    assert {"model.embed_tokens.free", "model.embed_tokens.projection.weight"} <= found
    assert len(decayed["params"]) + len(not_decayed["params"]) == len(names)


def test_a_step_moves_tokens_that_do_not_occur_according_to_their_features(store_dir: Path) -> None:
    """Only the projection is trained."""
    data = toy_data(store_dir, max_steps=1, warmup_steps=0, lr=1e-2)
    model = toy_model(learned=False)
    before, weight = current_table(model).detach(), computed(model).projection.weight.detach().clone()
    computed(model).free.requires_grad_(False)
    module = toy_module(model, max_steps=1, warmup_steps=0, lr=1e-2)
    toy_trainer(max_steps=1, limit_val_batches=0).fit(module, data)
    change_DF = computed(model).projection.weight.detach() - weight
    assert float(change_DF.abs().max()) == pytest.approx(1e-2, rel=1e-3)
    moved = current_table(model).detach() - before
    assert torch.allclose(moved, torch.from_numpy(unit_features()) @ change_DF.T, atol=1e-6)
    assert (moved.abs().max(dim=1).values > 0).all()


def published(model: LlamaForCausalLM, folder: Path) -> Path:
    write_table(model)
    model.save_pretrained(folder / "model")
    return folder / "model"


def checkpoint(model: LlamaForCausalLM, folder: Path) -> Path:
    weights = {f"model.{name}": value.clone() for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "global_step": 3}, folder / "x.ckpt")
    return folder / "x.ckpt"


@pytest.mark.parametrize("of", EMBEDDINGS)
@pytest.mark.parametrize("into", EMBEDDINGS)
def test_a_model_starts_exactly_where_the_published_one_stopped(of: str, into: str, tmp_path: Path) -> None:
    source, target = toy_model(0, embedding=of), toy_model(1, embedding=into)
    expected = logits(source)
    assert not torch.allclose(logits(target), expected, atol=1e-3)
    report = load_weights(published(source, tmp_path), target)
    assert torch.allclose(logits(target), expected, atol=1e-6)
    assert report.unexpected == []


def test_the_projection_stays_fresh_and_the_free_part_takes_the_difference(tmp_path: Path) -> None:
    source, target = toy_model(0, embedding="table"), toy_model(1)
    weight = computed(target).projection.weight.detach().clone()
    load_weights(published(source, tmp_path), target)
    assert torch.equal(computed(target).projection.weight, weight)
    assert torch.allclose(current_table(target), current_table(source), atol=1e-7)


def test_a_checkpoint_of_a_computed_embedding_comes_back_bit_by_bit(tmp_path: Path) -> None:
    source, target = toy_model(0), toy_model(1)
    load_weights(checkpoint(source, tmp_path), target, role="checkpoint")
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_rows_that_the_other_model_never_met_stay_as_the_features_make_them(tmp_path: Path) -> None:
    source, target = toy_model(0, embedding="table"), toy_model(1, learned=False)
    fresh = current_table(target).detach()
    unmet = torch.from_numpy(VOCABULARY.kind_of == Kind.VELOCITY)
    load_weights(published(source, tmp_path), target, unseen_V=unmet)
    table = current_table(target).detach()
    assert torch.equal(table[unmet], fresh[unmet])
    assert torch.allclose(table[~unmet], current_table(source)[~unmet], atol=1e-7)


def test_a_checkpoint_of_a_computed_embedding_does_not_fit_a_plain_one(tmp_path: Path) -> None:
    path = checkpoint(toy_model(), tmp_path)
    with pytest.raises(UserError) as caught:
        load_weights(path, toy_model(embedding="table"))
    assert str(caught.value) == (
        f"upstream.base={path}: of a run with model.embedding=codebook, whose table is computed, this model has "
        "model.embedding=table; give the artifact that the run published, or set model.embedding=codebook"
    )


def test_another_vocabulary_is_one_sentence(tmp_path: Path) -> None:
    other = build_llama(MODEL, SIZE + 1, 0, 1, 2, 32)
    with pytest.raises(UserError, match=f"embedding of {SIZE + 1} ids, this vocabulary has {SIZE}"):
        load_weights(published(other, tmp_path), toy_model())


def test_weights_computed_from_other_features_are_one_sentence(tmp_path: Path) -> None:
    other = build_llama(
        {**MODEL, "embedding": "codebook"},
        SIZE,
        *(VOCABULARY.pad, VOCABULARY.bos, VOCABULARY.eos),
        32,
        unit_features()[:, 1:],
    )
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"model.{name}": value for name, value in other.state_dict().items()}}, path)
    with pytest.raises(UserError, match=f"computed from {FEATURES - 1} features .* from {FEATURES}"):
        load_weights(path, toy_model())


def test_the_tied_output_has_no_parameters_of_its_own() -> None:
    model = toy_model()
    assert isinstance(model.lm_head, SharedOutput)
    assert list(model.lm_head.parameters()) == []
