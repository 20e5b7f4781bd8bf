"""The weights of a Llama as `NumpyEngine` needs them: fused, with the norms multiplied in, in float32.

Shapes: D width, V ids, H heads, K key/value heads, A width of a head, F feed-forward width, T positions, I input
width and O output width of a matrix. Matrices [I, O] are kept in the layout of `pianolm.generation.engine.products`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm.generation.engine.base import Array, check_architecture, output_table
from pianolm.generation.engine.products import Products, choose_products
from pianolm.lm.embedding import current_table

_OUTPUT_BLOCK = 256
"""Ids of a block of the output layer: logits are computed for whole blocks."""


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
        model: A Llama with default rotary positions.
        order: [V] ids, in the order in which logits are computed.
        products: How rows are multiplied with the matrices; None for the fastest way on this machine.

    Attributes:
        products: How rows are multiplied with these matrices.
        largest: Entries of the largest matrix of a layer.
        output_width: Ids of a block of `output`.
        output: [D, V] output layer in blocks, the last one padded with zeros.

    Raises:
        UserError: The model has a feature that the engine does not support.
    """

    def __init__(
        self, model: LlamaForCausalLM, order: NDArray[np.int64], products: Products | None = None
    ) -> None:
        check_architecture(model)
        config: Any = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_width, self.ffn_width = config.head_dim, config.intermediate_size
        self.width, self.eps = config.hidden_size, config.rms_norm_eps
        self.context = int(config.max_position_embeddings)
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
        self.embedding_VD = _array(current_table(model))
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self.output = self._output(_array(output_table(model))[order] * _array(model.model.norm.weight))
        self.output_width = _OUTPUT_BLOCK // self.products.blocks(self.width, _OUTPUT_BLOCK)
        frequency = model.model.rotary_emb.inv_freq.float().cpu()
        # computed as transformers does, so that angles are equal to the last bit
        angle = torch.outer(torch.arange(self.context, dtype=torch.float32), frequency)
        self.rotation_TA = torch.polar(torch.ones_like(angle), angle).numpy()

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        halves = np.arange(self.head_width).reshape(2, -1).T.ravel()
        scale = np.float32(self.head_width**-0.5)
        parts = [
            (attention.q_proj, self.heads, halves, scale),
            (attention.k_proj, self.kv_heads, halves, np.float32(1)),
            (attention.v_proj, self.kv_heads, np.arange(self.head_width), np.float32(1)),
        ]
        qkv, qkv_bias = [], []
        for linear, heads, order, factor in parts:
            rows = (np.arange(heads)[:, None] * self.head_width + order).ravel()
            qkv.append(_array(linear.weight)[rows] * factor)
            qkv_bias.append(None if linear.bias is None else _array(linear.bias)[rows] * factor)
        gate_up = [-_array(linear.weight) for linear in (mlp.gate_proj, mlp.up_proj)]
        gate_up_bias = [
            None if one.bias is None else -_array(one.bias) for one in (mlp.gate_proj, mlp.up_proj)
        ]
        input_norm, mlp_norm = (
            _array(n.weight) for n in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        return _Layer(
            qkv=self._in_layout(np.concatenate(qkv) * input_norm),
            out=self._in_layout(_array(attention.o_proj.weight)),
            gate_up=self._in_layout(np.concatenate(gate_up) * mlp_norm),
            down=self._in_layout(_array(mlp.down_proj.weight)),
            biases=(
                _joined(qkv_bias),
                _joined([None if attention.o_proj.bias is None else _array(attention.o_proj.bias)]),
                _joined(gate_up_bias),
                _joined([None if mlp.down_proj.bias is None else _array(mlp.down_proj.bias)]),
            ),
        )

    def _in_layout(self, matrix_OI: Array) -> Array:
        return self.products.layout(np.ascontiguousarray(matrix_OI.T))

    def _output(self, table_VD: Array) -> Array:
        blocks = -(-len(table_VD) // _OUTPUT_BLOCK)
        padded_DV = np.zeros((self.width, blocks * _OUTPUT_BLOCK), np.float32)
        padded_DV[:, : len(table_VD)] = table_VD.T
        return self.products.layout(padded_DV, blocks * self.products.blocks(self.width, _OUTPUT_BLOCK))


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().numpy()
    return array


def _joined(biases: list[Array | None]) -> Array | None:
    arrays = [bias for bias in biases if bias is not None]
    return np.concatenate(arrays) if arrays else None
