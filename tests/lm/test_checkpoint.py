"""Weights into a model that exists, and models of the sizes that a file shows; what does not fit is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm.checkpoint import load_weights
from pianolm.lm.llama import llama_from_weights
from pianolm.lm.model import build_llama
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.lm.toys import toy_model
from tests.toy_lm import CONTEXT, toy_llama
from tests.toy_tokens import MODEL, VOCABULARY

TOKENS = torch.arange(12)[None]


def logits(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def state(model: LlamaForCausalLM, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: value.clone() for name, value in model.state_dict().items()}


def as_directory(model: LlamaForCausalLM, folder: Path) -> Path:
    model.save_pretrained(folder / "model")
    return folder / "model"


def as_safetensors(model: LlamaForCausalLM, folder: Path) -> Path:
    return as_directory(model, folder) / "model.safetensors"


def as_checkpoint(prefix: str) -> Callable[[LlamaForCausalLM, Path], Path]:
    def write(model: LlamaForCausalLM, folder: Path) -> Path:
        torch.save({"state_dict": state(model, prefix), "global_step": 3}, folder / "x.ckpt")
        return folder / "x.ckpt"

    return write


def as_bare_body(model: LlamaForCausalLM, folder: Path) -> Path:
    """Names as a LlamaModel without its head would have them."""
    body = {
        name.removeprefix("model."): value for name, value in state(model).items() if "lm_head" not in name
    }
    save_file(body, folder / "body.safetensors")
    return folder / "body.safetensors"


FORMS = [
    as_directory,
    as_safetensors,
    as_bare_body,
    *map(
        as_checkpoint,
        ["", "model.", "module.model.", "_orig_mod.", "model._orig_mod.", "model.module.", "net.llama."],
    ),
]


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_loaded_from_every_form(
    form: Callable[[LlamaForCausalLM, Path], Path], tmp_path: Path
) -> None:
    source, target = toy_model(0), toy_model(1)
    assert not torch.equal(logits(source), logits(target))
    report = load_weights(form(source, tmp_path), target)
    assert torch.equal(logits(source), logits(target))
    assert report.unexpected == []
    assert len(report.loaded) == len(source.state_dict()) - 1, "all but the tied output layer"


def test_what_is_left_over_is_reported(tmp_path: Path) -> None:
    save_file({**state(toy_model(), "model."), "extra.scale": torch.ones(1)}, tmp_path / "x.safetensors")
    report = load_weights(tmp_path / "x.safetensors", toy_model(1))
    assert report.unexpected == ["extra.scale"]
    assert "1 left over (extra.scale)" in str(report)


def test_another_vocabulary_is_one_sentence_that_names_both_sides(tmp_path: Path) -> None:
    model = toy_model()
    other = build_llama(MODEL, model.config.vocab_size + 1, 0, 1, 2, 32)
    with pytest.raises(UserError) as caught:
        load_weights(as_directory(other, tmp_path), model)
    size = model.config.vocab_size
    expected = f"upstream.base={tmp_path / 'model'}: embedding of {size + 1} ids, this vocabulary has {size}"
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 3}, "3 layers, this model has 2"),
        ({"layers": 1}, "1 layers, this model has 2"),
        ({"width": 32}, r"of shape \[\d+, 32\], this model's is \[\d+, 16\]"),
        ({"tied": False}, r"its output layer \(lm_head\.weight\) has weights of its own"),
    ],
)
def test_another_architecture_is_one_sentence(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    before = logits(target := toy_model(1))
    with pytest.raises(UserError, match=message):
        load_weights(as_directory(toy_model(0, **changes), tmp_path), target)
    assert torch.equal(logits(target), before)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    weights = state(toy_model())
    del weights["model.norm.weight"], weights["lm_head.weight"]
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"lacks model\.norm\.weight of this model"):
        load_weights(tmp_path / "x.safetensors", toy_model(1))


def test_a_file_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    (tmp_path / "x.ckpt").write_bytes(b"nonsense")
    (tmp_path / "x.bin").write_bytes(b"")
    (tmp_path / "x.npz").write_bytes(b"")
    torch.save({"weights": {}}, tmp_path / "y.ckpt")
    torch.save({"state_dict": {}, "hook": Path("x")}, tmp_path / "z.ckpt")  # an object: not read
    save_file({"codes": torch.ones(2)}, tmp_path / "codec.safetensors")
    expected = {
        "x.safetensors": "not readable as weights",
        "x.ckpt": "not readable as weights",
        "y.ckpt": "not readable as weights",
        "z.ckpt": "not readable as weights",
        "x.bin": "not readable as weights",
        "x.npz": r"\.npz found, expected a model directory, a \.safetensors or a PyTorch file",
        "gone.ckpt": "no such file",
        ".": "no such file",
        "codec.safetensors": "no weights of a Llama language model",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message):
            load_weights(tmp_path / name, toy_model())


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tied": {},
    "grouped": {"num_key_value_heads": 2},
    "wide heads": {"head_dim": 12, "num_key_value_heads": 1},
    "untied": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True, "num_hidden_layers": 3},
}


def imported(file: Path, vocabulary: Vocabulary = VOCABULARY, heads: int = 4) -> LlamaForCausalLM:
    source = f"upstream.model={file}"
    return llama_from_weights(file, vocabulary, heads, 10_000.0, CONTEXT, source).network()


def save(weights: dict[str, torch.Tensor], file: Path) -> Path:
    save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    return file


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.bin", "x.ckpt", "x.safetensors"])
def test_a_model_is_made_from_the_shapes_in_a_file(name: str, kind: str, tmp_path: Path) -> None:
    source = toy_llama(VOCABULARY, **ARCHITECTURES[kind])
    model = imported(save(state(source, "net.llama."), tmp_path / name))
    assert torch.equal(logits(model), logits(source))
    for key in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_key_value_heads",
        "tie_word_embeddings",
    ):
        assert getattr(model.config, key) == getattr(source.config, key)
    assert model.config.max_position_embeddings == CONTEXT
    assert model.config.eos_token_id == VOCABULARY.eos


def test_what_shapes_do_not_show_is_given(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 200.0}
    source = toy_llama(VOCABULARY, rope_parameters=rope, num_attention_heads=2, num_key_value_heads=2)
    file = save(state(source), tmp_path / "x.safetensors")
    model = llama_from_weights(file, VOCABULARY, 2, 200.0, 32, "file").network()
    assert torch.equal(logits(model), logits(source))
    assert not torch.equal(logits(imported(file, heads=2)), logits(source))


def test_weights_keep_their_precision_and_rotary_frequencies_theirs(tmp_path: Path) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in state(toy_llama(VOCABULARY)).items()}
    model = imported(save(weights, tmp_path / "x.safetensors"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.get_input_embeddings().weight, weights["model.embed_tokens.weight"])
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_constants_of_older_versions_are_left_out(tmp_path: Path) -> None:
    source = toy_llama(VOCABULARY)
    weights = state(source) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert torch.equal(logits(imported(save(weights, tmp_path / "x.pt"))), logits(source))


LAYER = "net.model.layers.1."
MISFITS: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "a missing tensor": (
        {f"{LAYER}mlp.up_proj.weight": None},
        r"lacks model\.layers\.1\.mlp\.up_proj\.weight of this model of 20 tensors",
    ),
    "no layers": (
        {"net.model.layers.0.self_attn.q_proj.weight": None},
        r"lacks model\.layers\.0\.self_attn\.q_proj\.weight",
    ),
    "no norm": ({"net.model.norm.weight": None}, r"lacks model\.norm\.weight of this model"),
    "another architecture": (
        {f"{LAYER}self_attn.q_norm.weight": torch.ones(8)},
        r"net\.model\.layers\.1\.self_attn\.q_norm\.weight found, which a Llama does not have",
    ),
    "another shape": (
        {f"{LAYER}mlp.up_proj.weight": torch.ones(50, 32)},
        r"mlp\.up_proj\.weight of shape \[50, 32\] found, the other tensors make it \[48, 32\]",
    ),
    "no model": ({"net.model.embed_tokens.weight": None}, r"no weights of a Llama language model"),
    "two models": (
        {"ema.model.embed_tokens.weight": torch.ones(2)},
        r"several models found, under the prefixes 'ema\.model\.', 'net\.model\.'",
    ),
    "a codebook embedding": (
        {"net.model.embed_tokens.weight": None, "net.model.embed_tokens.free": torch.ones(2)},
        r"model\.embedding=codebook found, .* give the artifact that the run published",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_file_that_does_not_fit_is_one_sentence(case: str, tmp_path: Path) -> None:
    changes, message = MISFITS[case]
    weights = state(toy_llama(VOCABULARY), "net.") | changes
    file = save({name: tensor for name, tensor in weights.items() if tensor is not None}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message) as error:
        imported(file)
    assert str(error.value).startswith(f"upstream.model={file}: ")
    assert "\n" not in str(error.value)


def test_a_vocabulary_or_heads_that_do_not_fit_name_both_sides(tmp_path: Path) -> None:
    file = save(state(toy_llama(VOCABULARY)), tmp_path / "x.pt")
    size = VOCABULARY.size
    with pytest.raises(UserError, match=f"embedding of {size} ids, the tokenizer has 4789"):
        imported(file, Vocabulary())
    for heads in (0, 3, 32):
        with pytest.raises(UserError, match=f"32 query rows and 32 key rows .* heads={heads}; .*model.heads"):
            imported(file, heads=heads)
