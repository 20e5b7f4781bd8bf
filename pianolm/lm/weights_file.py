"""Files with the weights of a language model: what they hold, under the names of transformers' `LlamaForCausalLM`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pianolm.errors import UserError
from pianolm.lm.weights_path import PYTORCH_ENDINGS, WEIGHTS, check_weights_path

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FREE, PROJECTION = "model.embed_tokens.free", "model.embed_tokens.projection.weight"
"""Names of the two parts of a codebook embedding, `pianolm.lm.embedding.CodebookEmbedding`."""

_BODY = "model."
_WRAPPERS = ("model.", "module.")
_COMPILED = "_orig_mod."
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class NamedWeights:
    """Tensors of a file.

    Attributes:
        tensors: By their names in `LlamaForCausalLM`.
        unexpected: Names in the file that are not below its embedding's prefix.
        original: Names in the file by the names in `tensors`.
    """

    tensors: dict[str, Tensor]
    unexpected: list[str]
    original: dict[str, str]


def read_tensors(path: Path, source: str) -> dict[str, Tensor]:
    """All tensors of a weights file, or of `model.safetensors` in a directory.

    Args:
        path: Directory or file. PyTorch files are read weights-only, so that they cannot run code; they hold a state
            dict, or one under `state_dict`, `model_state_dict` or `model`.
        source: How error messages call the file, such as `upstream.base=PATH`.

    Raises:
        UserError: The file is missing, of another format, damaged, or holds no tensors.
    """
    file = check_weights_path(path, source)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return _state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{source}: not readable as weights ({reason}); give the file as it was published"
        ) from error


def _state_dict(content: object) -> dict[str, Tensor]:
    """The tensors of an unpickled file. Raises TypeError where there are none."""
    if not isinstance(content, Mapping):
        raise TypeError(f"{type(content).__name__} found, expected a state dict")
    inner = next((content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), content)
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        raise TypeError("no tensors found, expected a state dict")
    return tensors


def rename_tensors(tensors: Mapping[str, Tensor], source: str) -> NamedWeights:
    """Gives tensors their names in `LlamaForCausalLM`, whatever prefix a training program put before them.

    The embedding's name shows the prefix: `net.llama.embed_tokens.weight` and `net.llama.layers.0.…` become
    `model.embed_tokens.weight` and `model.layers.0.…`; the output layer is `lm_head.weight` after a part of the prefix.

    Raises:
        UserError: There is no embedding, or there are several models in the file.
    """
    clean = {name: name.replace(_COMPILED, "") for name in tensors}
    prefix = _prefix(list(clean.values()), source)
    weights: dict[str, Tensor] = {}
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


def check_model_directory(directory: Path) -> None:
    """Raises UserError where a directory is not one that a stage published, with a sentence that says why."""
    expected = "expected a directory published by stage=base or stage=finetune"
    if directory.is_file():
        raise UserError(
            f"{directory}: a file found, {expected}; PianoLM.from_weights reads a plain weights file"
        )
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; {expected}")
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: no config.json; {expected}")
    weights = directory / WEIGHTS
    if not weights.is_file():
        pickles = sorted(
            path.name for path in directory.glob("*") if path.suffix in (*PYTORCH_ENDINGS, ".pkl")
        )
        hint = ""
        if pickles:
            hint = (
                f"; {', '.join(pickles)} found, but pickled weights are not read here, as they can run code"
            )
        raise UserError(f"{directory}: no {WEIGHTS}{hint}; {expected}")
    try:
        with safe_open(weights, "numpy"):
            pass
    except (SafetensorError, OSError) as error:
        with weights.open("rb") as file:
            is_pickle = file.read(2) in (b"PK", b"\x80\x02")  # torch.save's zip format and its older one
        problem = "a pickle found" if is_pickle else f"not readable ({error})"
        raise UserError(
            f"{weights}: {problem}, expected weights in the safetensors format; {expected}"
        ) from error
