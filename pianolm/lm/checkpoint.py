"""Weights from a file into a language model that exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.utils import logging as hf_logging

from pianolm.errors import UserError
from pianolm.lm.embedding import CodebookEmbedding
from pianolm.lm.weight_names import (
    EMBEDDING,
    FREE,
    HEAD,
    PROJECTION,
    NamedWeights,
    depth,
    refuse_missing,
    rename_tensors,
)
from pianolm.lm.weights_file import read_tensors


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
    refuse_missing(weights, [name for name in own if name != HEAD], source)
    model.load_state_dict(weights, strict=False)  # not strict, as a tied output layer is not in the file
    return LoadReport(loaded, sorted([*named.unexpected, *left_over]))


def _refuse_untied(weights: Mapping[str, Tensor], source: str) -> None:
    head, embedding = weights.get(HEAD), weights.get(EMBEDDING)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise UserError(
            f"{source}: its output layer ({HEAD}) has weights of its own, this model's is tied to the embedding; "
            "give weights of a model with tied embeddings"
        )


def _refuse_mismatch(
    weights: Mapping[str, Tensor],
    named: NamedWeights[Tensor],
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
    layers = depth(named.tensors)
    if layers != config.num_hidden_layers:
        raise UserError(
            f"{source}: {layers} layers, this model has {config.num_hidden_layers}; choose the model that was trained "
            f"(model.layers={layers})"
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
