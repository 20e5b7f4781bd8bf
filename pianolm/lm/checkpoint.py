"""Weights of a language model in any of the forms they come in; what does not fit is one sentence."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.utils import logging as hf_logging

from pianolm.errors import UserError
from pianolm.lm.embedding import CodebookEmbedding

WEIGHTS = "model.safetensors"
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FREE, _PROJECTION = "model.embed_tokens.free", "model.embed_tokens.projection.weight"
_PREFIXES = ("model.", "module.", "_orig_mod.")


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's tensors, by name.

    Attributes:
        loaded: Names in the model that got their values.
        missing: Names in the model that the file lacks.
        unexpected: Names in the file that the model lacks.
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (("missing", self.missing), ("left over", self.unexpected)):
            parts.append(f"{len(names)} {what}" + (f" ({', '.join(names[:5])})" if names else ""))
        return ", ".join(parts)


def load_weights(
    path: str | Path, model: LlamaForCausalLM, role: str = "upstream.base", unmet_V: Tensor | None = None
) -> LoadReport:
    """Puts weights into a model.

    A table goes into a computed embedding exactly: its free part takes what the projection does not say.

    Args:
        path: A model directory (with `model.safetensors`), a `.safetensors` file, or a Lightning `.ckpt`,
            which is read weights-only. Names may have the prefixes `model.`, `module.` and `_orig_mod.`, or
            lack the first.
        model: Gets them. Where its output layer is not tied and the file has none, it starts as the
            embedding.
        role: The configuration key that named the path, for messages.
        unmet_V: Ids (bool) that the file's model never met. A computed embedding knows better what they are than rows
            that nothing was learned for, and keeps its own.

    Raises:
        UserError: Not such a file, or of another vocabulary, width or depth.
    """
    path = Path(path)
    where = f"{role}={path}"
    found = _read(path, where)
    embedding = model.get_input_embeddings()
    own = model.state_dict()
    places = dict(own)
    if isinstance(embedding, CodebookEmbedding):
        places |= {_EMBEDDING: embedding.free, _HEAD: embedding.free}
    weights, unexpected = _rename(found, set(places))
    if model.config.tie_word_embeddings:
        _refuse_untied(weights, where)
        weights.pop(_HEAD, None)
    elif _HEAD not in weights and _EMBEDDING in weights:
        weights[_HEAD] = weights[_EMBEDDING]
    _refuse_mismatch(weights, unexpected, places, model, where)
    loaded = sorted(weights)
    if isinstance(embedding, CodebookEmbedding) and _EMBEDDING in weights:
        weights[_FREE] = embedding.free_part(weights.pop(_EMBEDDING), unmet_V)
        weights[_PROJECTION] = own[_PROJECTION]
    result = model.load_state_dict(weights, strict=False)
    missing = [
        name for name in result.missing_keys if not (name == _HEAD and model.config.tie_word_embeddings)
    ]
    if missing:
        raise UserError(
            f"{where}: lacks {missing[0]}{_more(missing)} of this model of {len(own)} tensors; give weights "
            f"of the "
            "same architecture"
        )
    return LoadReport(loaded, missing, sorted(unexpected))


def _read(path: Path, where: str) -> dict[str, Tensor]:
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{where}: no such file ({file}); expected a model directory, a .safetensors or a .ckpt file"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if file.suffix == ".ckpt":
            content = torch.load(file, map_location="cpu", weights_only=True)
            weights: dict[str, Tensor] = content["state_dict"]
            return weights
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{where}: not readable as weights ({reason}); give the file as it was published"
        ) from error
    raise UserError(
        f"{where}: {file.suffix or 'no ending'} found, expected a directory, .safetensors or .ckpt"
    )


def _rename(found: dict[str, Tensor], own: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the model's names, and the names that have no place in it."""
    weights, unexpected = {}, []
    for name, value in found.items():
        own_name = _own_name(name, own)
        if own_name is None:
            unexpected.append(name)
        else:
            weights[own_name] = value
    return weights, unexpected


def _own_name(name: str, own: set[str]) -> str | None:
    name = name.replace("_orig_mod.", "")
    while True:
        for candidate in (name, f"model.{name}"):
            if candidate in own:
                return candidate
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return None
        name = name.removeprefix(prefix)


def _refuse_untied(weights: dict[str, Tensor], where: str) -> None:
    head, embedding = weights.get(_HEAD), weights.get(_EMBEDDING)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise UserError(
            f"{where}: its output layer is not its embedding, this model ties them; set "
            f"model.tie_embeddings=false"
        )


def _refuse_mismatch(
    weights: dict[str, Tensor],
    unexpected: list[str],
    own: dict[str, Tensor],
    model: LlamaForCausalLM,
    where: str,
) -> None:
    """Says the first thing that does not fit, vocabulary before depth before shapes."""
    config = model.config
    if any(name.endswith(_FREE.removeprefix("model.")) for name in unexpected):
        raise UserError(
            f"{where}: of a run with model.embedding=codebook, whose table is computed, this model has "
            f"model.embedding=table; give the artifact that the run published, or set model.embedding=codebook"
        )
    table = weights.get(_EMBEDDING, weights.get(_FREE))
    if table is None:
        raise UserError(f"{where}: no {_EMBEDDING} in it, so these are no weights of a Llama language model")
    rows = table.shape[0]
    if rows != config.vocab_size:
        raise UserError(
            f"{where}: embedding of {rows} ids, this vocabulary has {config.vocab_size}; give weights of "
            f"this "
            "vocabulary or set tokenizer.vocabulary to theirs"
        )
    depth = _depth([*weights, *unexpected])
    if depth != config.num_hidden_layers:
        raise UserError(
            f"{where}: {depth} layers, this model has {config.num_hidden_layers}; choose the model that was "
            f"trained "
            f"(model.layers={depth})"
        )
    for name, value in weights.items():
        if value.shape != own[name].shape and name == _PROJECTION:
            raise UserError(
                f"{where}: its table is computed from {value.shape[1]} features of the tokens, this model's from "
                f"{own[name].shape[1]}, as tokenizers or versions of pianolm differ; give the artifact directory "
                "that the run published, which holds the table itself"
            )
        if value.shape != own[name].shape:
            raise UserError(
                f"{where}: {name} of shape {list(value.shape)}, this model's is {list(own[name].shape)}; "
                f"choose the "
                "model that was trained (model=…)"
            )


def _depth(names: list[str]) -> int:
    layers = [int(found.group(1)) for name in names if (found := re.search(r"(?:^|\.)layers\.(\d+)\.", name))]
    return max(layers, default=-1) + 1


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing a bar for a file that is read or written in an instant."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
