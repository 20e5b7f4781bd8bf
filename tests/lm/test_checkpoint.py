from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm.checkpoint import load_weights
from pianolm.lm.model import build_llama
from tests.lm.test_module import toy_model
from tests.toy_tokens import MODEL

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
        ["", "model.", "module.", "module.model.", "_orig_mod.", "model._orig_mod.", "model.module."],
    ),
]


# A bare body has no output layer, so that it fits a model that ties it only.
@pytest.mark.parametrize(
    ("form", "tied"),
    [(form, tied) for form in FORMS for tied in (True, False) if tied or form is not as_bare_body],
)
def test_weights_come_back_from_every_form(
    form: Callable[[LlamaForCausalLM, Path], Path], tied: bool, tmp_path: Path
) -> None:
    source, target = toy_model(0, tied=tied), toy_model(1, tied=tied)
    if form is as_bare_body and not tied:
        pytest.skip("an output layer of its own is not in a bare body")
    assert not torch.equal(logits(source), logits(target))
    report = load_weights(form(source, tmp_path), target)
    assert torch.equal(logits(source), logits(target))
    assert report.missing == report.unexpected == []
    assert len(report.loaded) == len(source.state_dict()) - tied


def test_an_output_layer_of_its_own_starts_as_the_embedding(tmp_path: Path) -> None:
    source, target = toy_model(0), toy_model(1, tied=False)
    load_weights(as_directory(source, tmp_path), target)
    assert torch.equal(logits(source), logits(target))


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
        ({"tied": False}, "this model ties them; set model.tie_embeddings=false"),
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


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
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
