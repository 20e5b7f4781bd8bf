"""The weights of a Llama as `NumpyEngine` needs them: fused, with the norms multiplied in, in float32.

Shapes: D width, V ids, H heads, K key/value heads, A width of a head, F feed-forward width, T positions, I input
width and O output width of a matrix. Matrices [I, O] are kept in the layout of `pianolm.generation.engine.products`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.engine.base import Array, check_architecture
from pianolm.generation.engine.products import Products, choose_products
from pianolm.lm.llama import Llama
from pianolm.lm.weight_names import EMBEDDING, HEAD

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

_OUTPUT_BLOCK = 256
"""Ids of a block of the output layer: logits are computed for whole blocks."""
_FREQUENCIES = "model.rotary_emb.inv_freq"
"""Name of the frequencies of rotary positions, which files do not hold."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """Matrices [I, O] of one layer; the norms' weights, signs and the scale of attention are multiplied in.

    Attributes:
        qkv: [D, (H + 2 K) A] queries, keys and values. The two halves of a head are interleaved, so that a rotation is
            a product of complex numbers.
        out: [H A, D] output projection of attention.
        gate_up: [D, 2 F] gate and up projections, both negated.
        down: [F, D] down projection.
        biases: Biases of these four; None where there is none.
    """

    qkv: Array
    out: Array
    gate_up: Array
    down: Array
    biases: tuple[Array | None, Array | None, Array | None, Array | None]


class LlamaWeights:
    """The weights of a model as `NumpyEngine` needs them, in float32.

    Args:
        llama: Its sizes and weights.
        order: [V] ids, in the order in which logits are computed.
        products: How rows are multiplied with the matrices; None for the fastest way on this machine.

    Attributes:
        products: How rows are multiplied with these matrices.
        largest: Entries of the largest matrix of a layer.
        output_width: Ids of a block of `output`.
        output: [D, V] output layer in blocks, the last one padded with zeros.
    """

    def __init__(self, llama: Llama, order: NDArray[np.int64], products: Products | None = None) -> None:
        config, weights = llama.config, llama.weights
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_width, self.ffn_width = config["head_dim"], config["intermediate_size"]
        self.width, self.eps = config["hidden_size"], config["rms_norm_eps"]
        self.context = int(config["max_position_embeddings"])
        width_qkv = (self.heads + 2 * self.kv_heads) * self.head_width
        shapes = {
            (self.width, width_qkv),
            (self.heads * self.head_width, self.width),
            (self.width, 2 * self.ffn_width),
            (self.ffn_width, self.width),
            (self.width, _OUTPUT_BLOCK),
        }
        self.largest = max(inputs * outputs for inputs, outputs in shapes)
        self.products = products or choose_products(frozenset(shapes))
        self.embedding_VD = weights[EMBEDDING]
        self.layers = [
            self._layer(weights, f"model.layers.{number}.") for number in range(config["num_hidden_layers"])
        ]
        table_VD = weights.get(HEAD, self.embedding_VD)
        self.output = self._output(table_VD[order] * weights["model.norm.weight"])
        self.output_width = _OUTPUT_BLOCK // self.products.blocks(self.width, _OUTPUT_BLOCK)
        frequency_A = weights.get(_FREQUENCIES)
        if frequency_A is None:
            frequency_A = _frequencies(self.head_width, config["rope_parameters"]["rope_theta"])
        # angles are rounded to float32, as in transformers
        angle_TA = np.arange(self.context, dtype=np.float32)[:, None] * frequency_A
        self.rotation_TA = np.exp(1j * angle_TA.astype(np.float64)).astype(np.complex64)

    def _layer(self, weights: Mapping[str, Array], layer: str) -> _Layer:
        attention, mlp = f"{layer}self_attn.", f"{layer}mlp."
        halves = np.arange(self.head_width).reshape(2, -1).T.ravel()
        scale = np.float32(self.head_width**-0.5)
        parts = [
            ("q_proj", self.heads, halves, scale),
            ("k_proj", self.kv_heads, halves, np.float32(1)),
            ("v_proj", self.kv_heads, np.arange(self.head_width), np.float32(1)),
        ]
        qkv, qkv_bias = [], []
        for name, heads, order, factor in parts:
            rows = (np.arange(heads)[:, None] * self.head_width + order).ravel()
            qkv.append(weights[f"{attention}{name}.weight"][rows] * factor)
            bias = weights.get(f"{attention}{name}.bias")
            qkv_bias.append(None if bias is None else bias[rows] * factor)
        gate_up = [-weights[f"{mlp}{name}.weight"] for name in ("gate_proj", "up_proj")]
        gate_up_bias = [weights.get(f"{mlp}{name}.bias") for name in ("gate_proj", "up_proj")]
        return _Layer(
            qkv=self._in_layout(np.concatenate(qkv) * weights[f"{layer}input_layernorm.weight"]),
            out=self._in_layout(weights[f"{attention}o_proj.weight"]),
            gate_up=self._in_layout(
                np.concatenate(gate_up) * weights[f"{layer}post_attention_layernorm.weight"]
            ),
            down=self._in_layout(weights[f"{mlp}down_proj.weight"]),
            biases=(
                _joined(qkv_bias),
                weights.get(f"{attention}o_proj.bias"),
                _joined([None if bias is None else -bias for bias in gate_up_bias]),
                weights.get(f"{mlp}down_proj.bias"),
            ),
        )

    def _in_layout(self, matrix_OI: Array) -> Array:
        return self.products.layout(np.ascontiguousarray(matrix_OI.T))

    def _output(self, table_VD: Array) -> Array:
        blocks = -(-len(table_VD) // _OUTPUT_BLOCK)
        padded_DV = np.zeros((self.width, blocks * _OUTPUT_BLOCK), np.float32)
        padded_DV[:, : len(table_VD)] = table_VD.T
        return self.products.layout(padded_DV, blocks * self.products.blocks(self.width, _OUTPUT_BLOCK))


def llama_of(model: LlamaForCausalLM) -> Llama:
    """The sizes and weights that a network has now; a codebook embedding as the table that it computes.

    Raises:
        UserError: The model has a feature that the engines do not support.
    """
    from pianolm.lm.embedding import current_table  # imports torch, as the model has

    check_architecture(model)
    config: dict[str, Any] = model.config.to_dict()
    weights = {name: _array(tensor) for name, tensor in model.state_dict().items()}
    weights[EMBEDDING] = _array(current_table(model))
    # in lower precision these are not the frequencies of theta
    weights[_FREQUENCIES] = _array(model.model.rotary_emb.inv_freq)
    if config["tie_word_embeddings"]:
        weights.pop(HEAD, None)
    return Llama({**config, "head_dim": model.config.head_dim}, weights)


def _frequencies(head_width: int, rope_theta: float) -> Array:
    """[A / 2] frequencies of rotary positions."""
    exponent_A = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    return np.float32(1) / np.power(rope_theta, exponent_A.astype(np.float64)).astype(np.float32)


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().float().cpu().numpy()
    return array


def _joined(biases: list[Array | None]) -> Array | None:
    arrays = [bias for bias in biases if bias is not None]
    return np.concatenate(arrays) if arrays else None
