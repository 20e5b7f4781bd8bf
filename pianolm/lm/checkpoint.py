"""Weights from a file into a language model: into one that exists, or into one of the size that the file has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as hf_logging

from pianolm.errors import UserError
from pianolm.lm.embedding import CodebookEmbedding
from pianolm.lm.weights_file import (
    EMBEDDING,
    FREE,
    HEAD,
    PROJECTION,
    NamedWeights,
    read_tensors,
    rename_tensors,
)
from pianolm.lm.weights_path import WEIGHTS
from pianolm.tokenizer.vocabulary import Vocabulary

__all__ = ["WEIGHTS", "LoadReport", "llama_from_weights", "load_weights", "without_progress_bars"]

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_FIRST_LAYER = "model.layers.0."
NORM_EPS = 1e-6
"""Default of transformers' `LlamaConfig.rms_norm_eps`."""
_BUFFER = ".rotary_emb.inv_freq"
"""A constant that older versions of transformers wrote beside the weights."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a file went into a model.

    Attributes:
        loaded: Names in the model that got their values.
        unexpected: Names in the file that the model lacks.
    """

    loaded: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        names = f" ({', '.join(self.unexpected[:5])})" if self.unexpected else ""
        return f"{len(self.loaded)} tensors loaded, {len(self.unexpected)} left over{names}"


def load_weights(
    path: str | Path, model: LlamaForCausalLM, role: str = "upstream.base", unseen_V: Tensor | None = None
) -> LoadReport:
    """Loads weights into a model of the same architecture.

    A table of embeddings goes into a codebook embedding exactly: the free part becomes the difference between the table
    and the projected features.

    Args:
        path: A model directory (with `model.safetensors`), a `.safetensors` file, or a PyTorch file, which is read
            weights-only. Names of tensors may have any prefix; see `rename_tensors`.
        model: Gets the weights. Its output layer is tied to its embedding.
        role: The configuration key that named the path, for messages.
        unseen_V: bool [V], ids that the file's model was never trained on. A codebook embedding keeps its own rows for
            them, since the file's rows are untrained.

    Raises:
        UserError: The file cannot be read, or is of another vocabulary, width or depth.
    """
    source = f"{role}={path}"
    named = rename_tensors(read_tensors(Path(path), source), source)
    embedding = model.get_input_embeddings()
    own = model.state_dict()
    assert model.config.tie_word_embeddings, "models that are trained have tied embeddings"
    targets = dict(own)
    if isinstance(embedding, CodebookEmbedding):
        targets |= {EMBEDDING: embedding.free, HEAD: embedding.free}
    weights = {name: tensor for name, tensor in named.tensors.items() if name in targets}
    left_over = [named.original[name] for name in named.tensors if name not in targets]
    _refuse_untied(weights, source)
    weights.pop(HEAD, None)
    _refuse_mismatch(weights, named, targets, model, source)
    loaded = sorted(weights)
    if isinstance(embedding, CodebookEmbedding) and EMBEDDING in weights:
        weights[FREE] = embedding.free_part(weights.pop(EMBEDDING), unseen_V)
        weights[PROJECTION] = own[PROJECTION]
    _refuse_missing(weights, [name for name in own if name != HEAD], source)
    model.load_state_dict(weights, strict=False)  # not strict, as a tied output layer is not in the file
    return LoadReport(loaded, sorted([*named.unexpected, *left_over]))


def _refuse_missing(weights: Mapping[str, Tensor], names: list[str], source: str) -> None:
    """Raises UserError where a file lacks a tensor of the model, which would otherwise keep random numbers."""
    missing = [name for name in names if name not in weights]
    if missing:
        raise UserError(
            f"{source}: lacks {missing[0]}{_and_more(missing)} of this model of {len(names)} tensors; give the "
            "complete weights of a model of this architecture"
        )


def _refuse_untied(weights: Mapping[str, Tensor], source: str) -> None:
    head, embedding = weights.get(HEAD), weights.get(EMBEDDING)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise UserError(
            f"{source}: its output layer ({HEAD}) has weights of its own, this model's is tied to the embedding; "
            "give weights of a model with tied embeddings"
        )


def _refuse_mismatch(
    weights: Mapping[str, Tensor],
    named: NamedWeights,
    targets: Mapping[str, Tensor],
    model: LlamaForCausalLM,
    source: str,
) -> None:
    """Raises UserError for the first mismatch: of embeddings, then of vocabulary, depth and shapes."""
    config = model.config
    if FREE in named.tensors and FREE not in targets:
        raise UserError(
            f"{source}: of a run with model.embedding=codebook, whose table is computed, this model has "
            "model.embedding=table; give the artifact that the run published, or set model.embedding=codebook"
        )
    rows = weights.get(EMBEDDING, weights.get(FREE, next(iter(weights.values())))).shape[0]
    if rows != config.vocab_size:
        raise UserError(
            f"{source}: embedding of {rows} ids, this vocabulary has {config.vocab_size}; give weights of this "
            "vocabulary or set tokenizer.vocabulary to theirs"
        )
    depth = _depth(named.tensors)
    if depth != config.num_hidden_layers:
        raise UserError(
            f"{source}: {depth} layers, this model has {config.num_hidden_layers}; choose the model that was trained "
            f"(model.layers={depth})"
        )
    for name, tensor in weights.items():
        if tensor.shape != targets[name].shape and name == PROJECTION:
            raise UserError(
                f"{source}: its table is computed from {tensor.shape[1]} features of the tokens, this model's from "
                f"{targets[name].shape[1]}, as tokenizers or versions of pianolm differ; give the artifact directory "
                "that the run published, which holds the table itself"
            )
        if tensor.shape != targets[name].shape:
            raise UserError(
                f"{source}: {name} of shape {list(tensor.shape)}, this model's is {list(targets[name].shape)}; choose "
                "the model that was trained (model=…)"
            )


def llama_from_weights(
    path: Path,
    vocabulary: Vocabulary,
    heads: int,
    rope_theta: float,
    context: int,
    source: str,
    norm_eps: float = NORM_EPS,
) -> LlamaForCausalLM:
    """A Llama with the weights of a file and the sizes that the shapes of its tensors show.

    Args:
        path: See `load_weights`.
        vocabulary: Has as many ids as the embedding has rows.
        heads: Attention heads; the shapes do not show them.
        rope_theta: Base of the rotary position embedding.
        context: Tokens that the model was trained on at a time.
        source: How error messages call the file, such as `upstream.model=PATH`.
        norm_eps: Added to the mean square in RMSNorm.

    Raises:
        UserError: The file cannot be read; a tensor is missing or left over; or shapes, heads and vocabulary do not fit
            together.
    """
    named = rename_tensors(read_tensors(path, source), source)
    weights = {name: tensor for name, tensor in named.tensors.items() if not name.endswith(_BUFFER)}
    _check_embedding(weights, vocabulary, source)
    _refuse_not_finite(weights, named, source)
    config = _config_of(weights, heads, rope_theta, context, source)
    config.rms_norm_eps = norm_eps
    config.pad_token_id, config.bos_token_id = vocabulary.pad, vocabulary.bos
    config.eos_token_id = vocabulary.eos
    model = LlamaForCausalLM(config)
    for (
        parameter
    ) in model.parameters():  # not `model.to`, which would round the frequencies of rotary positions
        parameter.data = parameter.data.to(weights[EMBEDDING].dtype)
    own = model.state_dict()
    if config.tie_word_embeddings:
        weights.pop(HEAD, None)
        own.pop(HEAD, None)
    _refuse_difference(weights, own, named, source)
    model.load_state_dict(weights, strict=False)  # not strict, as a tied output layer is not in the file
    return model.eval()


def _check_embedding(weights: Mapping[str, Tensor], vocabulary: Vocabulary, source: str) -> None:
    """Raises UserError where a file has no table of embeddings or one of another vocabulary."""
    if EMBEDDING not in weights:
        raise UserError(
            f"{source}: a checkpoint of a run with model.embedding=codebook found, whose table of embeddings is not in "
            "the file; give the artifact that the run published"
        )
    if weights[EMBEDDING].shape[0] != vocabulary.size:
        raise UserError(
            f"{source}: embedding of {weights[EMBEDDING].shape[0]} ids, the tokenizer has {vocabulary.size}; give the "
            "tokenizer of this model, or set tokenizer.vocabulary to its sizes"
        )


def _refuse_not_finite(weights: Mapping[str, Tensor], named: NamedWeights, source: str) -> None:
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{source}: {named.original[name]} holds values that are not finite numbers; give the weights as they "
                "were published"
            )


def _config_of(
    weights: Mapping[str, Tensor], heads: int, rope_theta: float, context: int, source: str
) -> LlamaConfig:
    """The architecture that the shapes of the first layer, the embedding and the number of layers show."""

    def rows(name: str) -> int:
        tensor = weights.get(_FIRST_LAYER + name)
        if tensor is None:
            raise UserError(f"{source}: lacks {_FIRST_LAYER}{name}, without which a Llama has no layers")
        return int(tensor.shape[0])

    query_rows, key_rows = rows("self_attn.q_proj.weight"), rows("self_attn.k_proj.weight")
    head_width = query_rows // max(heads, 1)
    if heads < 1 or query_rows % (2 * heads) or key_rows % head_width or heads % (key_rows // head_width):
        raise UserError(
            f"{source}: {query_rows} query rows and {key_rows} key rows a layer found, which do not divide into "
            f"heads={heads}; give the number of heads that the model was trained with (model.heads=…)"
        )
    head = weights.get(HEAD)
    return LlamaConfig(
        vocab_size=weights[EMBEDDING].shape[0],
        hidden_size=weights[EMBEDDING].shape[1],
        intermediate_size=rows("mlp.gate_proj.weight"),
        num_hidden_layers=_depth(weights),
        num_attention_heads=heads,
        num_key_value_heads=key_rows // head_width,
        head_dim=head_width,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": float(rope_theta)},
        attention_bias=_FIRST_LAYER + "self_attn.q_proj.bias" in weights,
        mlp_bias=_FIRST_LAYER + "mlp.gate_proj.bias" in weights,
        tie_word_embeddings=head is None or torch.equal(head, weights[EMBEDDING]),
    )


def _refuse_difference(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], named: NamedWeights, source: str
) -> None:
    """Raises UserError where a file's tensors are not exactly those of a model."""
    _refuse_missing(weights, list(own), source)
    left_over = [named.original[name] for name in weights if name not in own]
    if left_over:
        raise UserError(
            f"{source}: {left_over[0]}{_and_more(left_over)} found, which a Llama does not have; pianolm generates "
            "with models of the Llama architecture"
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{source}: {named.original[name]} of shape {list(tensor.shape)} found, the other tensors make it "
                f"{list(own[name].shape)}"
            )


def _depth(names: Mapping[str, object]) -> int:
    """Number of layers; those that are missing between the first and the last do not count."""
    return len({int(match.group(1)) for name in names if (match := _LAYER.search(name))})


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing a bar for a file that is read or written in an instant."""
    was_enabled = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            hf_logging.enable_progress_bar()
