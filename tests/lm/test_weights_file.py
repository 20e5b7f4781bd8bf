"""Names of tensors without the prefixes of training programs, and forms of PyTorch files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pianolm.errors import UserError
from pianolm.lm.weight_names import rename_tensors
from pianolm.lm.weights_file import read_tensors

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def renamed(*names: str) -> dict[str, str]:
    """Names in the model by names in the file."""
    named = rename_tensors({name: torch.ones(1) for name in names}, "file")
    return {original: name for name, original in named.original.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "net.llama.", "module._orig_mod.", "a.model.model."])
@pytest.mark.parametrize("body", ["model.", ""])
def test_a_prefix_is_found_by_the_embedding(prefix: str, body: str) -> None:
    names = [f"{prefix}{body}embed_tokens.weight", f"{prefix}{body}norm.weight", f"{prefix}lm_head.weight"]
    assert renamed(*names) == dict(zip(names, (EMBEDDING, NORM, HEAD), strict=True))


def test_tensors_outside_the_prefix_are_unexpected() -> None:
    tensors = {
        name: torch.ones(1) for name in ("net.embed_tokens.weight", "vq.scale", "other.lm_head.weight")
    }
    named = rename_tensors(tensors, "file")
    assert list(named.tensors) == [EMBEDDING]
    assert named.unexpected == ["vq.scale", "other.lm_head.weight"]


def test_of_several_models_the_one_without_a_name_of_its_own_is_taken() -> None:
    names = renamed("model.embed_tokens.weight", "ema.model.embed_tokens.weight", "ema.model.norm.weight")
    assert names == {"model.embed_tokens.weight": EMBEDDING}
    with pytest.raises(UserError, match=r"several models found, under the prefixes 'a\.', 'b\.'"):
        renamed("a.embed_tokens.weight", "b.embed_tokens.weight")


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_may_lie_under_a_key(key: str | None, tmp_path: Path) -> None:
    weights = {"embed_tokens.weight": torch.arange(3.0)}
    torch.save(weights if key is None else {key: weights, "step": 3}, tmp_path / "x.pt")
    assert torch.equal(read_tensors(tmp_path / "x.pt", "file")["embed_tokens.weight"], torch.arange(3.0))


def test_tensors_are_read_without_their_gradients(tmp_path: Path) -> None:
    """NumPy takes no tensor that requires one."""
    torch.save({"embed_tokens.weight": torch.nn.Parameter(torch.arange(3.0))}, tmp_path / "x.pt")
    read = read_tensors(tmp_path / "x.pt", "file")["embed_tokens.weight"]
    assert not read.requires_grad
    assert read.numpy().tolist() == [0, 1, 2]


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    for content in ({"step": 3}, [1, 2]):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(UserError, match=r"^file: not readable as weights \((no tensors|list) found"):
            read_tensors(tmp_path / "x.pt", "file")
