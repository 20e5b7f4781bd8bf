"""Embeddings that are computed from what tokens are, and shared with the tied output layer.

The table is a learned projection of fixed features plus a free part, so what is learned of one token moves its
neighbours, too. Projection and free part together can be any table: the model is an ordinary Llama that learns by
another path, and `write_table` makes it one in form.

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
    """Stands where an `nn.Embedding` would.

    The features are no part of a state dict: they follow from the tokenizer, which fingerprints and hashes hold fixed.

    Args:
        features_VF: What each id is; see `pianolm.tokenizer.features`.
        width: D.
        projection_lr: What the learning rate of the projection is multiplied by.
        scale: Standard deviation of a fresh table's entries where features have norm 1.
    """

    features: Tensor

    def __init__(
        self, features_VF: NDArray[np.float32], width: int, projection_lr: float, scale: float
    ) -> None:
        super().__init__()
        self.projection_lr = projection_lr
        self.projection = nn.Linear(features_VF.shape[1], width, bias=False)
        nn.init.normal_(self.projection.weight, std=scale)
        self.free = nn.Parameter(torch.zeros(len(features_VF), width))
        self.register_buffer("features", torch.tensor(features_VF), persistent=False)

    def table(self) -> Tensor:
        """[V, D], in the parameters' own precision."""
        with torch.autocast(self.free.device.type, enabled=False):
            return torch.addmm(self.free, self.features, self.projection.weight.T)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows [..., D] of ids [...]."""
        return F.embedding(ids, self.table())

    @torch.no_grad()
    def free_part(self, table_VD: Tensor, own_V: Tensor | None = None) -> Tensor:
        """[V, D] the free part with which a table is the current one, to rounding.

        Args:
            table_VD: The table.
            own_V: Ids (bool) whose rows stay as they are.
        """
        rest_VD = table_VD.to(self.free) - self.projection(self.features)
        return rest_VD if own_V is None else torch.where(own_V[:, None], self.free, rest_VD)


class SharedOutput(nn.Module):
    """The output layer tied to a computed embedding."""

    def __init__(self, embedding: CodebookEmbedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, so that its parameters have one name

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D]."""
        return F.linear(hidden, self._embedding[0].table())


def use_features(model: LlamaForCausalLM, features_VF: NDArray[np.float32], projection_lr: float) -> None:
    """Gives a model a fresh codebook embedding; an output layer that is not tied stays a plain matrix."""
    embedding = CodebookEmbedding(
        features_VF, model.config.hidden_size, projection_lr, model.config.initializer_range
    )
    model.set_input_embeddings(embedding)
    if model.config.tie_word_embeddings:
        model.lm_head = SharedOutput(embedding)


@dataclass(frozen=True)
class OutputLayer:
    """An output layer as its weights [V, D], which may be computed ones."""

    weight: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D]."""
        return F.linear(hidden, self.weight)


def inputs_and_head(model: LlamaForCausalLM, ids_BT: Tensor) -> tuple[dict[str, Tensor], OutputLayer]:
    """What `model.model` is given for ids, and the output layer; a computed table is made once for both."""
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, CodebookEmbedding):
        return {"input_ids": ids_BT}, OutputLayer(model.lm_head.weight)
    table_VD = embedding.table()
    output_VD = table_VD if model.config.tie_word_embeddings else model.lm_head.weight
    return {"inputs_embeds": F.embedding(ids_BT, table_VD)}, OutputLayer(output_VD)


def current_table(model: LlamaForCausalLM) -> Tensor:
    """[V, D] the embedding in either form."""
    embedding: Any = model.get_input_embeddings()
    table_VD: Tensor = embedding.table() if isinstance(embedding, CodebookEmbedding) else embedding.weight
    return table_VD


@torch.no_grad()
def write_table(model: LlamaForCausalLM) -> None:
    """Puts an ordinary embedding with the same rows in the place of a computed one; logits stay."""
    if not isinstance(model.get_input_embeddings(), CodebookEmbedding):
        return
    plain = nn.Embedding.from_pretrained(
        current_table(model), freeze=False, padding_idx=model.config.pad_token_id
    )
    model.set_input_embeddings(plain)
    if model.config.tie_word_embeddings:
        model.lm_head = nn.Linear(plain.embedding_dim, plain.num_embeddings, bias=False, device="meta")
        model.lm_head.weight = plain.weight
