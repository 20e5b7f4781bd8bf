"""Token by token inference with a Llama in torch, for GPUs.

A step works on preallocated tensors, so that on CUDA it is recorded once as a graph and replayed.

Shapes: B rows, N tokens computed at once, D width, V ids, L layers, H heads, K key/value heads, A width of a head,
T positions of the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.generation.engine.base import Array, check_architecture
from pianolm.lm.embedding import current_table

_WARM_UP_STEPS = 3
"""Steps before a CUDA graph is recorded, as torch requires; they also choose kernels."""


class TorchEngine:
    """See `pianolm.generation.engine.base.Engine`. Computes on the device and in the precision of the model's weights.

    Args:
        model: A Llama with default rotary positions.
        order: [V] ids, in the order in which logits are returned.
        rows: B.

    Raises:
        UserError: The model has a feature that the engine does not support.
    """

    @torch.inference_mode()
    def __init__(self, model: LlamaForCausalLM, order: NDArray[np.int64], rows: int) -> None:
        check_architecture(model)
        config: Any = model.config
        self.context, self.lengths = int(config.max_position_embeddings), [0] * rows
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._layers, self._norm = list(model.model.layers), model.model.norm
        self._table_VD = current_table(model).detach()
        self._output_VD = _output_table(model)[torch.from_numpy(order).to(model.device)]
        self._qkv = [_fused(a.self_attn.q_proj, a.self_attn.k_proj, a.self_attn.v_proj) for a in self._layers]
        self._gate_up = [_fused(a.mlp.gate_proj, a.mlp.up_proj) for a in self._layers]
        self._positions_T = torch.arange(self.context, device=model.device)
        angle = torch.outer(self._positions_T.float(), model.model.rotary_emb.inv_freq.float())
        self._cos_TA = torch.cat([angle, angle], 1).cos().to(model.dtype)
        # negative for the half that moves to the front: (a, b) is rotated to (a cos − b sin, b cos + a sin)
        self._sin_TA = torch.cat([-angle, angle], 1).sin().to(model.dtype)
        shape = (len(self._layers), rows, self._kv_heads, self.context, config.head_dim)
        self._keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._values = torch.zeros_like(self._keys)
        self._ids_BN = torch.zeros(rows, 1, dtype=torch.long, device=model.device)
        self._position_BN = torch.zeros_like(self._ids_BN)
        self._logits = np.empty((rows, order.size), np.float32)
        self._graph: torch.cuda.CUDAGraph | None = None
        if model.device.type == "cuda":
            self._record()

    def clear(self, row: int) -> None:
        """Old entries are overwritten by the next tokens."""
        self.lengths[row] = 0

    @torch.inference_mode()
    def copy(self, source: int, target: int) -> None:
        """Copies on the device."""
        self.lengths[target] = self.lengths[source]
        for cache in (self._keys, self._values):
            cache[:, target] = cache[:, source]
        self._logits[target] = self._logits[source]

    @torch.inference_mode()
    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Computes all tokens at once, without the recorded graph."""
        start = self.lengths[row]
        assert 0 < len(ids) <= self.context - start, "at least one token, and no more than fit"
        ids_BN = torch.tensor([ids], device=self._positions_T.device)
        position_BN = self._positions_T[None, start : start + len(ids)]
        logits_BV = self._forward(ids_BN, position_BN, slice(row, row + 1))
        self._logits[row] = logits_BV[0].float().cpu().numpy()
        self.lengths[row] += len(ids)

    def read(self, ids_by_row: Mapping[int, Sequence[int]]) -> None:
        """Computes one token of each row at a time, so that all steps have the shapes of the recorded graph."""
        for number in range(max(map(len, ids_by_row.values()), default=0)):
            step = {row: ids[number] for row, ids in ids_by_row.items() if len(ids) > number}
            self._step(list(step), list(step.values()))

    @torch.inference_mode()
    def _step(self, rows: Sequence[int], ids: Sequence[int]) -> None:
        """One token of each given row. All other rows are computed, too, so that the shapes stay the same."""
        # what the other rows write into their caches is overwritten by their next tokens
        ids_B, position_B = [0] * len(self.lengths), [min(n, self.context - 1) for n in self.lengths]
        for row, token in zip(rows, ids, strict=True):
            ids_B[row] = token
        self._ids_BN.copy_(torch.tensor(ids_B)[:, None])
        self._position_BN.copy_(torch.tensor(position_B)[:, None])
        if self._graph is None:
            logits_BV = self._forward(self._ids_BN, self._position_BN, slice(None))
        else:
            self._graph.replay()
            logits_BV = self._recorded_BV
        logits = logits_BV.float().cpu().numpy()
        for row in rows:
            self._logits[row] = logits[row]
            self.lengths[row] += 1

    def logits(self, rows: Sequence[int], low: int, high: int) -> Array:
        """All logits have been computed and copied to the CPU before."""
        return self._logits[rows, low:high]

    def _record(self) -> None:
        """Records a step as a CUDA graph: one launch instead of hundreds of kernels."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                self._forward(self._ids_BN, self._position_BN, slice(None))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._recorded_BV = self._forward(self._ids_BN, self._position_BN, slice(None))
        self._graph = graph

    def _forward(self, ids_BN: Tensor, position_BN: Tensor, rows: slice) -> Tensor:
        """[B, V] logits after the last of N tokens, whose keys and values are put at these positions of the caches."""
        x_BND = F.embedding(ids_BN, self._table_VD)
        cos_B1NA, sin_B1NA = self._cos_TA[position_BN][:, None], self._sin_TA[position_BN][:, None]
        mask_B1NT = (self._positions_T <= position_BN[:, :, None])[:, None]
        for number, layer in enumerate(self._layers):
            qkv_BHNA = self._split(F.linear(layer.input_layernorm(x_BND), *self._qkv[number]))
            rotated, value_BKNA = qkv_BHNA.split([self._heads + self._kv_heads, self._kv_heads], dim=1)
            rotated = rotated * cos_B1NA + rotated.roll(rotated.shape[-1] // 2, dims=-1) * sin_B1NA
            query_BHNA, key_BKNA = rotated.split([self._heads, self._kv_heads], dim=1)
            keys, values = self._keys[number, rows], self._values[number, rows]
            index_BKNA = position_BN[:, None, :, None].expand(key_BKNA.shape)
            keys.scatter_(2, index_BKNA, key_BKNA)
            values.scatter_(2, index_BKNA, value_BKNA)
            grouped = self._heads != self._kv_heads
            mixed = F.scaled_dot_product_attention(query_BHNA, keys, values, mask_B1NT, enable_gqa=grouped)
            x_BND = x_BND + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
            gate, up = F.linear(layer.post_attention_layernorm(x_BND), *self._gate_up[number]).chunk(
                2, dim=-1
            )
            x_BND = x_BND + layer.mlp.down_proj(F.silu(gate) * up)
        return F.linear(self._norm(x_BND[:, -1]), self._output_VD)

    def _split(self, qkv_BNX: Tensor) -> Tensor:
        return qkv_BNX.unflatten(-1, (self._heads + 2 * self._kv_heads, -1)).transpose(1, 2)


def _fused(*linears: Any) -> tuple[Tensor, Tensor | None]:
    """Several projections of one input as one: weight and bias."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    biases = [linear.bias for linear in linears]
    return weight, None if biases[0] is None else torch.cat([cast(Tensor, bias).detach() for bias in biases])


def _output_table(model: LlamaForCausalLM) -> Tensor:
    """[V, D] weights of the output layer."""
    if model.config.tie_word_embeddings:
        return current_table(model).detach()
    return model.lm_head.weight.detach()
