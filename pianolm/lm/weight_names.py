"""Names of the tensors of a language model: whatever a file calls them, those of transformers' `LlamaForCausalLM`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pianolm.errors import UserError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FREE, PROJECTION = "model.embed_tokens.free", "model.embed_tokens.projection.weight"
"""Names of the two parts of a codebook embedding, `pianolm.lm.embedding.CodebookEmbedding`."""

_BODY = "model."
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_WRAPPERS = ("model.", "module.")
_COMPILED = "_orig_mod."
Values = TypeVar("Values")
"""Tensors of torch, or arrays."""


@dataclass(frozen=True)
class NamedWeights(Generic[Values]):
    """Tensors of a file.

    Attributes:
        tensors: By their names in `LlamaForCausalLM`.
        unexpected: Names in the file that are not below its embedding's prefix.
        original: Names in the file by the names in `tensors`.
    """

    tensors: dict[str, Values]
    unexpected: list[str]
    original: dict[str, str]


def rename_tensors(tensors: Mapping[str, Values], source: str) -> NamedWeights[Values]:
    """Gives tensors their names in `LlamaForCausalLM`, whatever prefix a training program put before them.

    The embedding's name shows the prefix: `net.llama.embed_tokens.weight` and `net.llama.layers.0.…` become
    `model.embed_tokens.weight` and `model.layers.0.…`; the output layer is `lm_head.weight` after a part of the prefix.

    Raises:
        UserError: There is no embedding, or there are several models in the file.
    """
    clean = {name: name.replace(_COMPILED, "") for name in tensors}
    prefix = _prefix(list(clean.values()), source)
    weights: dict[str, Values] = {}
    unexpected, original = [], {}
    for name, tensor in tensors.items():
        new_name = _name_in_llama(clean[name], prefix)
        if new_name is None:
            unexpected.append(name)
        else:
            weights[new_name], original[new_name] = tensor, name
    return NamedWeights(weights, unexpected, original)


def _prefix(names: list[str], source: str) -> str:
    """The prefix of the embedding's name; of several, the one that consists of module wrappers only."""
    endings = [name.removeprefix(_BODY) for name in (EMBEDDING, FREE)]
    prefixes = {
        name.removesuffix(ending)
        for name in names
        for ending in endings
        if name == ending or name.endswith(f".{ending}")
    }
    if not prefixes:
        raise UserError(
            f"{source}: no {EMBEDDING} in it, so these are no weights of a Llama language model; expected tensors "
            "named as in transformers' LlamaForCausalLM, after any prefix"
        )
    plain = [prefix for prefix in prefixes if not _without_wrappers(prefix)]
    chosen = sorted(plain if len(prefixes) > 1 else prefixes)
    if len(chosen) != 1:
        raise UserError(
            f"{source}: several models found, under the prefixes {', '.join(map(repr, sorted(prefixes)))}; give a file "
            "with one of them"
        )
    return chosen[0]


def _without_wrappers(prefix: str) -> str:
    while (wrapper := next((w for w in _WRAPPERS if prefix.startswith(w)), None)) is not None:
        prefix = prefix.removeprefix(wrapper)
    return prefix


def _name_in_llama(name: str, prefix: str) -> str | None:
    if name == HEAD or name.endswith(f".{HEAD}"):
        return HEAD if prefix.startswith(name.removesuffix(HEAD)) else None
    return _BODY + name.removeprefix(prefix) if name.startswith(prefix) else None


def refuse_missing(weights: Mapping[str, object], names: list[str], source: str) -> None:
    """Raises UserError where a file lacks a tensor of the model, which would otherwise keep random numbers."""
    missing = [name for name in names if name not in weights]
    if missing:
        raise UserError(
            f"{source}: lacks {missing[0]}{and_more(missing)} of this model of {len(names)} tensors; give the "
            "complete weights of a model of this architecture"
        )


def depth(names: Mapping[str, object]) -> int:
    """Number of layers; those that are missing between the first and the last do not count."""
    return len({int(match.group(1)) for name in names if (match := _LAYER.search(name))})


def and_more(names: list[str]) -> str:
    """The end of an enumeration of which the first name is given."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
