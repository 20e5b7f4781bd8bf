"""The interface of an inference engine, and what both engines ask of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Array = NDArray[np.float32]


class Engine(Protocol):
    """A Llama with one key/value cache per row; a row holds one piece.

    Attributes:
        context: Tokens that the cache of a row holds at most.
        lengths: Tokens in the cache of each row.
    """

    context: int
    lengths: list[int]

    def clear(self, row: int) -> None:
        """Empties the cache of a row."""

    def copy(self, source: int, target: int) -> None:
        """Copies the cache and the logits of row `source` to row `target`."""

    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Runs the model over tokens of one row: at least one, and no more than fit into its cache."""

    def read(self, ids_by_row: Mapping[int, Sequence[int]]) -> None:
        """Runs the model over tokens of several rows, of each row as `extend` does."""

    def logits(self, rows: Sequence[int], low: int, high: int) -> Array:
        """[rows, high − low] logits of the token after those of each row, for a range of the order; a new array."""


def check_architecture(model: LlamaForCausalLM) -> None:
    """Raises UserError where a model has a feature that the engines do not support."""
    config = model.config
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    checks = [
        (f"rope type {rope!r}", rope == "default", "'default'"),
        (f"activation {config.hidden_act!r}", config.hidden_act in ("silu", "swish"), "'silu'"),
        ("an output layer with a bias", getattr(model.lm_head, "bias", None) is None, "one without"),
    ]
    for feature, is_supported, expected in checks:
        if not is_supported:
            raise UserError(
                f"the model has {feature}, expected {expected}; pianolm cannot generate with this kind of Llama"
            )
