"""Altered model directories: one sentence, or the model as it was; never a traceback, a hang or other music."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pianolm import PianoLM
from pianolm.errors import UserError
from pianolm.lm.weight_names import EMBEDDING
from pianolm.lm.weights_path import WEIGHTS
from tests.evaluation.toys import model_directory

CONTEXT = 64
FILES = ("config.json", "tokenizer/tokenizer.json", "tokenizer/velocity/config.json")
ABSURD: tuple[Any, ...] = (-1, 0, 10**9, 10**18, 1e300, "x", None, [], {}, True, math.nan)
NETWORK = {"rms_norm_eps", "rope_theta", "max_position_embeddings", "num_attention_heads"}
"""Keys that no tensor contradicts; another value within their range is another network."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_directory(tmp_path_factory.mktemp("models") / "whole", velocity=True, context=CONTEXT)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def keys(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all values, those of objects included."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*path, key)
            yield from keys(value, (*path, key))


def altered(text: str, path: tuple[str, ...], value: Any) -> str:
    content = json.loads(text)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(content)


def played(directory: Path) -> list[int]:
    generated = PianoLM.from_pretrained(directory).generate_pieces(beats=2)
    return [int(one) for one in generated[0].ids]


@pytest.mark.parametrize("name", FILES)
def test_absurd_values_are_refused_or_change_nothing(name: str, whole: Path, copy: Path) -> None:
    """Sizes of 10^18 included: they come from the weights, so that none of these values takes memory or time."""
    text, before, sentences = (whole / name).read_text(), played(whole), []
    for path in keys(json.loads(text)):
        for value in ABSURD:
            (copy / name).write_text(altered(text, path, value))
            try:
                after = played(copy)
            except UserError as error:
                sentences.append(str(error))
            else:
                assert after == before or path[-1] in NETWORK, f"{path} = {value!r} plays other music"
    assert len(sentences) > 20
    assert all(str(copy) in sentence for sentence in sentences), "each names the file"


def broken_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        tensors = load_file(directory / WEIGHTS)
        change(tensors)
        save_file(tensors, directory / WEIGHTS, {"format": "pt"})

    return write


def cut(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:-9])


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (broken_weights(lambda t: t.pop(Q)), "lacks model.layers.0.self_attn.q_proj.weight"),
        (broken_weights(lambda t: t[Q].fill_(math.nan)), "holds values that are not finite"),
        (broken_weights(lambda t: t.update({EMBEDDING: t[EMBEDDING][:9].clone()})), "embedding of 9 ids"),
        (
            broken_weights(lambda t: t.update({"model.layers.999999999.x": torch.ones(1)})),
            "lacks model.layers.2.self_attn.q_proj.weight",
        ),
        (cut(WEIGHTS), "not readable"),
        (cut("config.json"), "config.json: not readable as JSON"),
        (lambda directory: (directory / "config.json").write_text("[]"), "expected a JSON object"),
        (lambda directory: (directory / "config.json").write_text("[" * 10**5), "not readable as JSON"),
        (cut("tokenizer/codebook.npz"), "not a readable .npz codebook"),
        (cut("tokenizer/velocity/codec.safetensors"), "no readable codec weights"),
    ],
)
def test_damaged_files_are_refused(damage: Callable[[Path], None], expected: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(UserError) as refused:
        PianoLM.from_pretrained(copy)
    assert expected in str(refused.value)
    assert str(copy) in str(refused.value)


def test_constants_of_the_network_are_those_of_the_file(copy: Path) -> None:
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(altered(text, ("rms_norm_eps",), 0.5))
    model = PianoLM.from_pretrained(copy).model
    assert model.model.norm.variance_epsilon == 0.5
    assert model.config.max_position_embeddings == CONTEXT
