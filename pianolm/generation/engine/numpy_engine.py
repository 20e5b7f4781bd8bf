"""Token by token inference with a Llama in NumPy, for CPUs.

Every row is multiplied with a matrix by itself, so that no bit of a piece depends on the pieces computed beside it. At
the sizes that run on a CPU most of a step is the overhead of calls, and NumPy's is smaller than torch's
(`experiments/benchmarks/generation-speed`).

Shapes: N rows of a step (pieces, or tokens of one piece), D width, V ids, H heads, K key/value heads, G = H / K,
A width of a head, F feed-forward width, T tokens in the cache, I input width and O output width of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from pianolm.generation.engine.base import Array, check_architecture, output_table
from pianolm.generation.engine.blas import OneThread
from pianolm.lm.embedding import current_table

_CHUNK = 128
"""Tokens of a prompt computed at a time; it bounds the size of the attention scores, [tokens computed, T] a head."""
_FEW_ROWS = 8
"""Up to this many rows, separate products of each row are faster than one product of matrices."""
_BEYOND_CACHE = 1 << 18
"""Entries of a matrix (1 MiB) above which it does not stay in a core's cache between steps. Most of a product is then
reading the matrix, and dot products with contiguous columns read it fastest: see the benchmark generation-speed."""
_LARGE = 1 << 20
"""Entries of a matrix above which a second thread saves more than its synchronisation costs."""


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

    Attributes:
        largest: Entries of the largest matrix of a layer.
        by_dots: Whether the columns of matrices are contiguous instead of their rows, so that a product is computed as
            one dot product per column.

    Raises:
        UserError: The model has a feature that the engine does not support.
    """

    def __init__(self, model: LlamaForCausalLM, order: NDArray[np.int64]) -> None:
        check_architecture(model)
        config: Any = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_width, self.ffn_width = config.head_dim, config.intermediate_size
        self.width, self.eps = config.hidden_size, config.rms_norm_eps
        self.context = int(config.max_position_embeddings)
        width_qkv = (self.heads + 2 * self.kv_heads) * self.head_width
        self.largest = self.width * max(width_qkv, 2 * self.ffn_width)
        self.by_dots = _BEYOND_CACHE <= self.largest < _LARGE
        self.embedding_VD = _array(current_table(model))
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self.output_DV = self._in_layout(_array(output_table(model))[order] * _array(model.model.norm.weight))
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
        """[I, O] with contiguous columns where products are computed by dots, else with contiguous rows."""
        return np.ascontiguousarray(matrix_OI).T if self.by_dots else np.ascontiguousarray(matrix_OI.T)


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().numpy()
    return array


def _joined(biases: list[Array | None]) -> Array | None:
    arrays = [bias for bias in biases if bias is not None]
    return np.concatenate(arrays) if arrays else None


class _Scratch:
    """Preallocated arrays for a forward pass of N rows.

    Args:
        weights: Of the model.
        rows: N.
        by_row: Whether each row is multiplied with a matrix by itself.
    """

    def __init__(self, weights: LlamaWeights, rows: int, by_row: bool) -> None:
        w, self.by_row = weights, by_row
        n_rotated = w.heads + w.kv_heads
        self.qkv = np.empty((rows, (w.heads + 2 * w.kv_heads) * w.head_width), np.float32)
        self.heads = self.qkv.reshape(rows, -1, w.head_width)
        rotated = self.qkv[:, : n_rotated * w.head_width].view(np.complex64)
        self.rotated = rotated.reshape(rows, n_rotated, -1)  # queries and keys as complex numbers, in place
        self.normed = np.empty((rows, w.width), np.float32)
        self.queries = list(self.heads[:, : w.heads].reshape(rows, w.kv_heads, -1, w.head_width))
        self.new_keys_values = list(self.heads[:, w.heads :].reshape(rows, 2, w.kv_heads, w.head_width))
        self.mixed = np.empty((rows, w.heads * w.head_width), np.float32)
        self.mixes = list(self.mixed.reshape(rows, w.kv_heads, -1, w.head_width))
        self.added = np.empty((rows, w.width), np.float32)
        self.gate_up = np.empty((rows, 2 * w.ffn_width), np.float32)
        self.gate, self.up = self.gate_up[:, : w.ffn_width], self.gate_up[:, w.ffn_width :]
        self.active = np.empty((rows, w.ffn_width), np.float32)


class NumpyEngine:
    """See `pianolm.generation.engine.base.Engine`.

    Args:
        weights: Of the model.
        rows: Number of rows.
    """

    def __init__(self, weights: LlamaWeights, rows: int) -> None:
        w = self._weights = weights
        self.context, self.lengths = w.context, [0] * rows
        # keys and values of each layer and piece: [2, K, T, A]
        shape = (len(w.layers), rows, 2, w.kv_heads, w.context, w.head_width)
        self._caches = [list(of_layer) for of_layer in np.zeros(shape, np.float32)]
        self._final_ND = np.empty((rows, w.width), np.float32)
        self._scratch = [_Scratch(w, n, by_row=True) for n in range(1, rows + 1)]
        self._threads = nullcontext() if w.largest >= _LARGE else OneThread()

    def clear(self, row: int) -> None:
        """Old entries are overwritten by the next tokens."""
        self.lengths[row] = 0

    def copy(self, source: int, target: int) -> None:
        """Copies the part of the cache that is in use."""
        length = self.lengths[target] = self.lengths[source]
        for caches in self._caches:
            caches[target][:, :, :length] = caches[source][:, :, :length]
        self._final_ND[target] = self._final_ND[source]

    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Computes chunks of `_CHUNK` tokens."""
        assert 0 < len(ids) <= self.context - self.lengths[row], "at least one token, and no more than fit"
        for first in range(0, len(ids), _CHUNK):
            chunk = np.array(ids[first : first + _CHUNK])
            start = self.lengths[row]
            x_ND = self._weights.embedding_VD[chunk]
            rotation = self._weights.rotation_TA[start : start + chunk.size, None]
            scratch = _Scratch(self._weights, chunk.size, by_row=chunk.size <= _FEW_ROWS)
            with self._threads if scratch.by_row else nullcontext(), np.errstate(over="ignore"):
                for layer, caches in zip(self._weights.layers, self._caches, strict=True):
                    self._project(layer, x_ND, rotation, scratch)
                    self._attend_chunk(scratch, caches[row], start)
                    self._attention_output_and_mlp(layer, x_ND, scratch)
            self.lengths[row] += chunk.size
        self._final_ND[row] = self._normed(x_ND[-1:], np.empty_like(x_ND[-1:]))

    def read(self, ids_by_row: Mapping[int, Sequence[int]]) -> None:
        """Computes rows with a single token together, and the tokens of each other row together."""
        single = {row: ids[0] for row, ids in ids_by_row.items() if len(ids) == 1}
        if single:
            self._step(list(single), list(single.values()))
        for row, ids in ids_by_row.items():
            if len(ids) > 1:
                self.extend(row, ids)

    def _step(self, rows: Sequence[int], ids: Sequence[int]) -> None:
        """One token of each row; no number of one row depends on another row."""
        w, scratch = self._weights, self._scratch[len(rows) - 1]
        positions = [self.lengths[row] for row in rows]
        x_ND = w.embedding_VD[ids]
        rotation = w.rotation_TA[positions][:, None]
        with (
            self._threads,
            np.errstate(over="ignore"),
        ):  # exp of a large −gate is ∞, and 1 / ∞ is 0 as it should be
            for layer, caches in zip(w.layers, self._caches, strict=True):
                self._project(layer, x_ND, rotation, scratch)
                for n, row in enumerate(rows):
                    _attend(scratch, n, caches[row], positions[n])
                self._attention_output_and_mlp(layer, x_ND, scratch)
        normed_ND = self._normed(x_ND, scratch.normed)
        for n, row in enumerate(rows):
            self._final_ND[row] = normed_ND[n]
            self.lengths[row] += 1

    def logits(self, row: int, low: int, high: int) -> Array:
        """Computes only this range: all logits would be most of a small model's work."""
        with self._threads:
            return _row_by_row(self._final_ND[row : row + 1], self._weights.output_DV[:, low:high])[0]

    def _project(
        self, layer: _Layer, x_ND: Array, rotation: NDArray[np.complex64], scratch: _Scratch
    ) -> None:
        """Queries, keys and values of rows, rotated by their positions."""
        _linear(self._normed(x_ND, scratch.normed), layer.qkv, layer.biases[0], scratch.qkv, scratch.by_row)
        scratch.rotated *= rotation

    def _attend_chunk(self, scratch: _Scratch, cache: Array, start: int) -> None:
        """Causal attention of several new tokens of one piece."""
        w, count = self._weights, len(scratch.heads)
        stop = start + count
        cache[:, :, start:stop] = np.stack(scratch.new_keys_values, axis=2)
        query_KGNA = np.stack(scratch.queries, axis=2)
        score_KGNT = query_KGNA @ cache[0, :, None, :stop].mT
        future_NT = np.arange(stop) > np.arange(start, stop)[:, None]
        score_KGNT[:, :, future_NT] = -np.inf
        score_KGNT -= score_KGNT.max(axis=3, keepdims=True)
        np.exp(score_KGNT, out=score_KGNT)
        score_KGNT /= score_KGNT.sum(axis=3, keepdims=True)
        mixed_HNA = (score_KGNT @ cache[1, :, None, :stop]).reshape(w.heads, count, w.head_width)
        scratch.mixed.reshape(count, w.heads, w.head_width)[:] = mixed_HNA.swapaxes(0, 1)

    def _attention_output_and_mlp(self, layer: _Layer, x_ND: Array, scratch: _Scratch) -> None:
        """The rest of a layer after attention; adds to the residual stream in place."""
        _linear(scratch.mixed, layer.out, layer.biases[1], scratch.added, scratch.by_row)
        x_ND += scratch.added
        _linear(
            self._normed(x_ND, scratch.normed),
            layer.gate_up,
            layer.biases[2],
            scratch.gate_up,
            scratch.by_row,
        )
        np.exp(scratch.gate, out=scratch.active)  # silu(g) · u = (−g) (−u) / (1 + exp(−g))
        scratch.active += np.float32(1)
        scratch.gate *= scratch.up
        np.divide(scratch.gate, scratch.active, out=scratch.active)
        _linear(scratch.active, layer.down, layer.biases[3], scratch.added, scratch.by_row)
        x_ND += scratch.added

    def _normed(self, x_ND: Array, out: Array) -> Array:
        """Rows divided by their root mean square; the norm's weights are part of the next matrix."""
        square_N = np.vecdot(x_ND, x_ND)
        square_N /= self._weights.width
        square_N += self._weights.eps
        np.sqrt(square_N, out=square_N)
        return np.divide(x_ND, square_N[:, None], out=out)


def _attend(scratch: _Scratch, n: int, cache: Array, position: int) -> None:
    """Attention of one new token of one piece, whose key and value are put into the cache."""
    cache[:, :, position] = scratch.new_keys_values[n]
    keys_KTA, values_KTA = cache[:, :, : position + 1]
    score_KGT = scratch.queries[n] @ keys_KTA.mT
    score_KGT -= np.maximum.reduce(score_KGT, axis=2, keepdims=True)
    np.exp(score_KGT, out=score_KGT)
    total_KG1 = np.add.reduce(score_KGT, axis=2, keepdims=True)
    np.divide(score_KGT @ values_KTA, total_KG1, out=scratch.mixes[n])


def _linear(x_NI: Array, matrix_IO: Array, bias_O: Array | None, out_NO: Array, by_row: bool) -> None:
    if by_row:
        _row_by_row(x_NI, matrix_IO, out_NO)
    else:
        np.matmul(x_NI, matrix_IO, out=out_NO)
    if bias_O is not None:
        out_NO += bias_O


def _row_by_row(x_NI: Array, matrix_IO: Array, out_NO: Array | None = None) -> Array:
    """The product of each row with a matrix by itself; as dot products where the matrix's columns are contiguous."""
    if matrix_IO.strides[0] == matrix_IO.itemsize:
        return np.vecdot(matrix_IO.T, x_NI[:, None], out=out_NO)
    return np.matmul(x_NI[:, None], matrix_IO, out=None if out_NO is None else out_NO[:, None])[:, 0]
