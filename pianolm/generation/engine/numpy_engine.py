"""Token by token inference with a Llama in NumPy, for CPUs.

No bit of a piece depends on the pieces computed beside it: products are those of `pianolm.generation.engine.products`,
and each row attends to its own tokens only. At the sizes that run on a CPU much of a step is the overhead of calls, and
NumPy's is smaller than torch's (`experiments/benchmarks/generation-speed`).

Shapes: N tokens of a step, of several pieces or of one; P of them with padding; D width, H heads, K key/value heads,
G = H / K, A width of a head, T tokens in the cache, S sums of `_SUMMED` attention weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.engine.base import Array
from pianolm.generation.engine.blas import OneThread
from pianolm.generation.engine.llama_weights import LlamaWeights
from pianolm.generation.engine.products import LARGE, Operands

_CHUNK = 128
"""Tokens of a prompt computed at a time; it bounds the size of the attention scores, [tokens computed, T] a head."""
_FEW_TOKENS = 8
"""Up to this many tokens of a row are computed together with those of other rows."""
_SUMMED = 64
"""Attention weights that are summed at a time. A sum of T weights would depend on the longest piece of the step."""
_FIRST_CAPACITY = 256
"""Tokens for which a cache has memory at first; it doubles when it is full."""


class _Scratch:
    """Preallocated arrays for a forward pass of N tokens.

    Args:
        weights: Of the model.
        count: N.
        capacity: Attention scores are allocated for this many tokens of the cache; 0 where they are not needed.
    """

    def __init__(self, weights: LlamaWeights, count: int, capacity: int) -> None:
        w, padded = weights, weights.products.padded(count)
        n_rotated = w.heads + w.kv_heads
        self.x = np.zeros((padded, w.width), np.float32)  # the padding stays 0
        self.normed = np.empty_like(self.x)
        self.added = np.empty_like(self.x)
        self.qkv = np.empty((padded, (w.heads + 2 * w.kv_heads) * w.head_width), np.float32)
        heads = self.qkv[:count].reshape(count, -1, w.head_width)
        rotated = self.qkv[:count, : n_rotated * w.head_width].view(np.complex64)
        self.rotated = rotated.reshape(count, n_rotated, -1)  # queries and keys as complex numbers, in place
        self.query = heads[:, : w.heads].reshape(count, w.kv_heads, -1, w.head_width)
        self.queries = list(self.query)
        self.keys_values = heads[:, w.heads :].reshape(count, 2, w.kv_heads, w.head_width)
        self.mixed = np.zeros((padded, w.heads * w.head_width), np.float32)
        self.mix = self.mixed[:count].reshape(self.query.shape)
        self.mixes = list(self.mix)
        self.gate_up = np.empty((padded, 2 * w.ffn_width), np.float32)
        self.gate, self.up = self.gate_up[:, : w.ffn_width], self.gate_up[:, w.ffn_width :]
        self.active = np.empty((padded, w.ffn_width), np.float32)
        self.score = np.empty((*self.query.shape[:3], -(-capacity // _SUMMED) * _SUMMED), np.float32)
        self.scores = list(self.score)
        layer, operands = w.layers[0], w.products.operands
        self.to_qkv: Operands = operands(self.normed, self.qkv, len(layer.qkv))
        self.to_out: Operands = operands(self.mixed, self.added, len(layer.out))
        self.to_gate_up: Operands = operands(self.normed, self.gate_up, len(layer.gate_up))
        self.to_down: Operands = operands(self.active, self.added, len(layer.down))


class NumpyEngine:
    """See `pianolm.generation.engine.base.Engine`.

    Args:
        weights: Of the model.
        rows: Number of rows.
    """

    def __init__(self, weights: LlamaWeights, rows: int) -> None:
        w = self._weights = weights
        self.context, self.lengths = w.context, [0] * rows
        self._grow(
            _FIRST_CAPACITY, np.zeros((len(w.layers), rows, 2, w.kv_heads, 0, w.head_width), np.float32)
        )
        self._final_ND = np.zeros((rows, w.width), np.float32)
        self._threads = nullcontext() if w.largest >= LARGE else OneThread()

    def _grow(self, capacity: int, caches: Array) -> None:
        """Makes room for more tokens in the caches: keys and values [2, K, T, A] of each layer and row."""
        used = caches.shape[4]
        self._capacity = min(capacity, self.context)
        self._caches = np.zeros((*caches.shape[:4], self._capacity, caches.shape[5]), np.float32)
        self._caches[..., :used, :] = caches
        self._scratch = lru_cache(lambda count: _Scratch(self._weights, count, self._capacity))

    def _reserve(self, length: int) -> None:
        capacity = self._capacity
        while capacity < length:
            capacity *= 2
        if capacity > self._capacity:
            self._grow(capacity, self._caches)

    def clear(self, row: int) -> None:
        """Old entries are overwritten by the next tokens."""
        self.lengths[row] = 0

    def copy(self, source: int, target: int) -> None:
        """Copies the part of the cache that is in use."""
        length = self.lengths[target] = self.lengths[source]
        self._caches[:, target, :, :, :length] = self._caches[:, source, :, :, :length]
        self._final_ND[target] = self._final_ND[source]

    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Computes chunks of `_CHUNK` tokens, and few tokens as `read` does."""
        assert 0 < len(ids) <= self.context - self.lengths[row], "at least one token, and no more than fit"
        if len(ids) <= _FEW_TOKENS:
            self.read({row: ids})
            return
        self._reserve(self.lengths[row] + len(ids))
        for first in range(0, len(ids), _CHUNK):
            chunk = ids[first : first + _CHUNK]
            start, scratch = self.lengths[row], _Scratch(self._weights, len(chunk), 0)
            scratch.x[: len(chunk)] = self._weights.embedding_VD[chunk]
            rotation = self._weights.rotation_TA[start : start + len(chunk), None]
            with self._threads, np.errstate(over="ignore"):
                for number, caches in enumerate(self._caches):
                    self._project(number, rotation, scratch)
                    self._attend_chunk(scratch, caches[row], start)
                    self._attention_output_and_mlp(number, scratch)
            self.lengths[row] += len(chunk)
        self._final_ND[row] = self._normed(scratch)[len(chunk) - 1]

    def read(self, ids_by_row: Mapping[int, Sequence[int]]) -> None:
        """Computes few tokens of any number of rows together, and many tokens of a row by themselves."""
        few = [(row, ids) for row, ids in ids_by_row.items() if len(ids) <= _FEW_TOKENS]
        if few:
            rows = [row for row, ids in few for _ in ids]
            positions = [self.lengths[row] + n for row, ids in few for n in range(len(ids))]
            self._step(rows, positions, [token for _, ids in few for token in ids])
        for row, ids in ids_by_row.items():
            if len(ids) > _FEW_TOKENS:
                self.extend(row, ids)

    def _step(self, rows: Sequence[int], positions: Sequence[int], ids: Sequence[int]) -> None:
        """Some tokens of some rows; those of a row follow each other."""
        self._reserve(max(positions) + 1)
        w, scratch, count = self._weights, self._scratch(len(ids)), len(ids)
        scratch.x[:count] = w.embedding_VD[ids]
        rotation = w.rotation_TA[positions][:, None]
        # exp of a large −gate is ∞, and 1 / ∞ is 0 as it should be
        with self._threads, np.errstate(over="ignore"):
            for number, caches in enumerate(self._caches):
                self._project(number, rotation, scratch)
                caches[rows, :, :, positions] = scratch.keys_values
                _attend(scratch, caches, rows, positions)
                self._attention_output_and_mlp(number, scratch)
        self._final_ND[rows] = self._normed(scratch)[:count]  # of several tokens of a row the last one stays
        for row in rows:
            self.lengths[row] += 1

    def logits(self, rows: Sequence[int], low: int, high: int) -> Array:
        """Computes only the blocks of this range: all logits would be most of a small model's work."""
        w = self._weights
        first, last = low // w.output_width, -(-high // w.output_width)
        final_PD = np.zeros((w.products.padded(len(rows)), w.width), np.float32)
        final_PD[: len(rows)] = self._final_ND[rows]
        logits_PR = np.empty((len(final_PD), (last - first) * w.output_width), np.float32)
        with self._threads:
            operands = w.products.operands(final_PD, logits_PR, last - first)
            w.products.multiply(operands, w.output[first:last])
        start = first * w.output_width
        return logits_PR[: len(rows), low - start : high - start]

    def _project(self, number: int, rotation: NDArray[np.complex64], scratch: _Scratch) -> None:
        """Queries, keys and values of tokens, rotated by their positions."""
        layer = self._weights.layers[number]
        self._normed(scratch)
        self._weights.products.multiply(scratch.to_qkv, layer.qkv)
        if layer.biases[0] is not None:
            scratch.qkv += layer.biases[0]
        scratch.rotated *= rotation

    def _attend_chunk(self, scratch: _Scratch, cache: Array, start: int) -> None:
        """Causal attention of several new tokens of one piece, whose keys and values are put into the cache."""
        count = len(scratch.query)
        stop = start + count
        cache[:, :, start:stop] = scratch.keys_values.transpose(1, 2, 0, 3)
        query_KGNA = scratch.query.transpose(1, 2, 0, 3)
        score_KGNT = query_KGNA @ cache[0, :, None, :stop].mT
        future_NT = np.arange(stop) > np.arange(start, stop)[:, None]
        score_KGNT[:, :, future_NT] = -np.inf
        score_KGNT -= score_KGNT.max(axis=3, keepdims=True)
        np.exp(score_KGNT, out=score_KGNT)
        score_KGNT /= score_KGNT.sum(axis=3, keepdims=True)
        scratch.mix[:] = (score_KGNT @ cache[1, :, None, :stop]).transpose(2, 0, 1, 3)

    def _attention_output_and_mlp(self, number: int, scratch: _Scratch) -> None:
        """The rest of a layer after attention; adds to the residual stream in place."""
        layer, products = self._weights.layers[number], self._weights.products
        products.multiply(scratch.to_out, layer.out)
        _add(scratch, layer.biases[1])
        self._normed(scratch)
        products.multiply(scratch.to_gate_up, layer.gate_up)
        if layer.biases[2] is not None:
            scratch.gate_up += layer.biases[2]
        np.exp(scratch.gate, out=scratch.active)  # silu(g) · u = (−g) (−u) / (1 + exp(−g))
        scratch.active += np.float32(1)
        scratch.gate *= scratch.up
        np.divide(scratch.gate, scratch.active, out=scratch.active)
        products.multiply(scratch.to_down, layer.down)
        _add(scratch, layer.biases[3])

    def _normed(self, scratch: _Scratch) -> Array:
        """Rows divided by their root mean square; the norm's weights are part of the next matrix."""
        square_P = np.vecdot(scratch.x, scratch.x)
        square_P /= self._weights.width
        square_P += self._weights.eps
        np.sqrt(square_P, out=square_P)
        return np.divide(scratch.x, square_P[:, None], out=scratch.normed)


def _add(scratch: _Scratch, bias_D: Array | None) -> None:
    """Adds an output and its bias to the residual stream; the padding stays 0, so that it remains finite."""
    scratch.x += scratch.added
    if bias_D is not None:
        scratch.x[: len(scratch.query)] += bias_D


def _attend(scratch: _Scratch, caches: Array, rows: Sequence[int], positions: Sequence[int]) -> None:
    """Attention of each token to its row up to its position; keys and values of all are in the caches."""
    longest = -(-(max(positions) + 1) // _SUMMED) * _SUMMED
    score_NKGT = scratch.score[..., :longest]
    pieces = [(row, position + 1) for row, position in zip(rows, positions, strict=True)]
    for (row, stop), query_KGA, score_KGT in zip(pieces, scratch.queries, scratch.scores, strict=True):
        np.matmul(query_KGA, caches[row, 0, :, :stop].mT, out=score_KGT[..., :stop])
        score_KGT[..., stop:longest] = -np.inf
    score_NKGT -= np.maximum.reduce(score_NKGT, axis=3, keepdims=True)
    np.exp(score_NKGT, out=score_NKGT)
    sum_NKGS = np.add.reduce(score_NKGT.reshape(*score_NKGT.shape[:3], -1, _SUMMED), axis=4)
    for (row, stop), score_KGT, mix_KGA in zip(pieces, scratch.scores, scratch.mixes, strict=True):
        np.matmul(score_KGT[..., :stop], caches[row, 1, :, :stop], out=mix_KGA)
    # accumulated one after the other, so that the zeros of longer pieces change nothing
    scratch.mix /= np.add.accumulate(sum_NKGS, axis=3)[..., -1:]
