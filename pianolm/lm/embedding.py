"""Codebook embedding: rows computed from the features of tokens, shared with the tied output layer.

The table is a learned projection of fixed features plus a learned offset per row, named `free`. A gradient at one
token thereby also moves tokens with similar features. Projection and `free` together can represent any table, so the
model has the capacity of an ordinary Llama, and `write_table` turns it into one.

Shapes: V ids, F features, D width, B rows, T inputs of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaForCausalLM


class CodebookEmbedding(nn.Module):
    """Replaces an `nn.Embedding`.

    The features are not saved in the state dict: they follow from the tokenizer, whose hashes are compared on loading.

    Args:
        features_VF: Features of each id; see `pianolm.tokenizer.features`.
        width: D.
        scale: Standard deviation of the initial table's entries where features have norm 1.
    """

    features: Tensor

    def __init__(self, features_VF: NDArray[np.float32], width: int, scale: float) -> None:
        super().__init__()
        self.projection = nn.Linear(features_VF.shape[1], width, bias=False)
        nn.init.normal_(self.projection.weight, std=scale)
        self.free = nn.Parameter(torch.zeros(len(features_VF), width))
        self.register_buffer("features", torch.tensor(features_VF), persistent=False)

    def table(self) -> Tensor:
        """[V, D], in the precision of the parameters also under autocast."""
        with torch.autocast(self.free.device.type, enabled=False):
            return torch.addmm(self.free, self.features, self.projection.weight.T)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows [..., D] of ids [...]."""
        return F.embedding(ids, self.table())

    @torch.no_grad()
    def free_part(self, table_VD: Tensor, keep_V: Tensor | None = None) -> Tensor:
        """[V, D] the value of `free` with which `table()` returns a given table, to rounding.

        Args:
            table_VD: The table wanted.
            keep_V: bool, ids whose rows stay as they are.
        """
        free_VD = table_VD.to(self.free) - self.projection(self.features)
        return free_VD if keep_V is None else torch.where(keep_V[:, None], self.free, free_VD)


class SharedOutput(nn.Module):
    """The output layer tied to a codebook embedding."""

    def __init__(self, embedding: CodebookEmbedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, so that its parameters are registered only once

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D]."""
        return F.linear(hidden, self._embedding[0].table())


def use_features(model: LlamaForCausalLM, features_VF: NDArray[np.float32]) -> None:
    """Gives a model with tied embeddings a fresh codebook embedding."""
    assert model.config.tie_word_embeddings, "a codebook embedding is tied to the output layer"
    embedding = CodebookEmbedding(features_VF, model.config.hidden_size, model.config.initializer_range)
    model.set_input_embeddings(embedding)
    model.lm_head = SharedOutput(embedding)


@dataclass(frozen=True)
class OutputLayer:
    """An output layer given by its weights [V, D], which may be computed."""

    weight: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D]."""
        return F.linear(hidden, self.weight)


def inputs_and_head(model: LlamaForCausalLM, ids_BT: Tensor) -> tuple[dict[str, Tensor], OutputLayer]:
    """Arguments of `model.model` for ids, and the output layer. A computed table is computed once for both."""
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, CodebookEmbedding):
        return {"input_ids": ids_BT}, OutputLayer(model.lm_head.weight)
    table_VD = embedding.table()
    return {"inputs_embeds": F.embedding(ids_BT, table_VD)}, OutputLayer(table_VD)


def current_table(model: LlamaForCausalLM) -> Tensor:
    """[V, D] the embedding table of a model with either kind of embedding."""
    embedding: Any = model.get_input_embeddings()
    table_VD: Tensor = embedding.table() if isinstance(embedding, CodebookEmbedding) else embedding.weight
    return table_VD


@torch.no_grad()
def write_table(model: LlamaForCausalLM) -> None:
    """Replaces a codebook embedding by an ordinary embedding with the same rows; logits do not change."""
    if not isinstance(model.get_input_embeddings(), CodebookEmbedding):
        return
    table = nn.Embedding.from_pretrained(
        current_table(model), freeze=False, padding_idx=model.config.pad_token_id
    )
    model.set_input_embeddings(table)
    model.lm_head = nn.Linear(table.embedding_dim, table.num_embeddings, bias=False, device="meta")
    model.lm_head.weight = table.weight
