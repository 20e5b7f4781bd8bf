"""A published model's directory: `config.json` and `model.safetensors` into a network, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolm.errors import UserError
from pianolm.json_file import read_object
from pianolm.lm.llama import CONSTRAINED_LOSS, NORM_EPS, SHARES, Llama, llama_from_weights
from pianolm.lm.weights_path import WEIGHTS
from pianolm.tokenizer.vocabulary import Vocabulary

CONFIG = "config.json"
LONGEST_CONTEXT = 2**17
"""Largest `max_position_embeddings` that is believed; the cache of keys and values grows with it."""
SHORTEST_CONTEXT = 16
"""Smallest one: a beat must fit into half of it."""
_FIXED = {"model_type": "llama", "hidden_act": "silu"}
_COMPARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_key_value_heads",
    "head_dim",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
)
"""Keys that must agree with the shapes of the weights."""


def llama_from_directory(directory: Path, vocabulary: Vocabulary) -> Llama:
    """The Llama of a model directory, in float32.

    Sizes come from the weights, which exist, so that no value of `config.json` can ask for more memory than they take.

    Args:
        directory: Published by stage base or finetune, or saved by `LlamaForCausalLM.save_pretrained`.
        vocabulary: That of the tokenizer.

    Raises:
        UserError: A file is missing or unreadable, the two do not fit each other, or the network is not a Llama.
    """
    path = directory / CONFIG
    config = read_object(path)
    for key, expected in _FIXED.items():
        if config.get(key, expected) != expected:
            raise UserError(f"{path}: {key}={config[key]!r} found, expected {expected!r}")
    heads = _whole(config, "num_attention_heads", path, 2**16)
    context = _whole(config, "max_position_embeddings", path, LONGEST_CONTEXT, least=SHORTEST_CONTEXT)
    llama = llama_from_weights(
        directory / WEIGHTS,
        vocabulary,
        heads,
        _rope_theta(config, path),
        context,
        str(directory / WEIGHTS),
        _positive(config, "rms_norm_eps", NORM_EPS, path, 1.0),
    )
    for key in _COMPARED:
        found, expected = config.get(key), llama.config[key]
        if found is not None and (type(found) is not type(expected) or found != expected):
            raise UserError(
                f"{path}: {key}={found!r} found, the tensors of {WEIGHTS} beside it make it {expected!r}; give both "
                "files of one model"
            )
    if not isinstance(constrained := config.get(CONSTRAINED_LOSS, False), bool):
        raise UserError(f"{path}: {CONSTRAINED_LOSS}={constrained!r} found, expected true or false")
    shares = {name: config.get(name, 0.0) for name in SHARES}
    for name, share in shares.items():
        if type(share) not in (int, float) or not 0 <= share <= 1:
            raise UserError(f"{path}: {name}={share!r} found, expected a number from 0 to 1")
    return replace(llama, precision="float32", constrained=constrained, **shares)


def _whole(config: Mapping[str, Any], key: str, path: Path, most: int, least: int = 1) -> int:
    value = config.get(key)
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{path}: {key}={value!r} found, expected a whole number from {least} to {most}")
    return value


def _positive(config: Mapping[str, Any], key: str, default: float, path: Path, most: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value <= most:
        raise UserError(f"{path}: {key}={value!r} found, expected a positive number of at most {most:g}")
    return float(value)


def _rope_theta(config: Mapping[str, Any], path: Path) -> float:
    """Base of the rotary positions, as transformers 5 (`rope_parameters`) and earlier versions write it."""
    rope = config.get("rope_parameters", config.get("rope_scaling"))
    rope = {} if rope is None else rope
    kind = rope.get("rope_type", "default") if isinstance(rope, dict) else rope
    if kind != "default":
        raise UserError(f"{path}: rotary positions of type {kind!r} found, expected 'default'")
    return _positive(rope if "rope_theta" in rope else config, "rope_theta", 10_000.0, path, 1e12)
