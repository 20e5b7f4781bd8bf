"""What playing a language model needs of it: reading token by token, and the logits of what follows.

`pianolm.generation.engine.numpy_engine` does so on a CPU, `pianolm.generation.engine.torch_engine` on a GPU.

Shapes: V ids, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm.embedding import current_table

Array = NDArray[np.float32]


class Engine(Protocol):
    """Some pieces in a model's hands, each with a cache of its own.

    Attributes:
        context: Most tokens of a piece that the cache holds.
        lengths: Of each piece, the tokens it holds.
    """

    context: int
    lengths: list[int]

    def clear(self, row: int) -> None:
        """Forgets what piece `row` was."""

    def copy(self, source: int, target: int) -> None:
        """Makes piece `target` what piece `source` is."""

    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Reads more of one piece: at least one token, as many as there is room for."""

    def read(self, fresh: Mapping[int, Sequence[int]]) -> None:
        """Reads some more of each of some pieces, by row: at least one token, as many as there is room for."""

    def logits(self, row: int, low: int, high: int) -> Array:
        """[high − low] logits of what follows in piece `row`, at some places of the order of ids; the caller's own."""


def check_architecture(model: LlamaForCausalLM) -> None:
    """Raises UserError where a model does more than the engines do."""
    config = model.config
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    wrong = [
        (f"rope type {rope!r}", rope != "default", "'default'"),
        (f"activation {config.hidden_act!r}", config.hidden_act not in ("silu", "swish"), "'silu'"),
        ("an output layer with a bias", getattr(model.lm_head, "bias", None) is not None, "none"),
    ]
    for found, is_wrong, expected in wrong:
        if is_wrong:
            raise UserError(
                f"the model has {found}, expected {expected}; pianolm cannot play this kind of Llama"
            )


def output_table(model: LlamaForCausalLM) -> torch.Tensor:
    """[V, D] the matrix that makes logits."""
    if model.config.tie_word_embeddings:
        return current_table(model).detach()
    return model.lm_head.weight.detach()
