"""The loss of the output layer. Logits are computed in chunks, used for loss and gradient, and dropped.

Shapes: n targets, o of them whose mask allows several ids, c of a chunk, p rows of it with padding, D width, V ids,
M token masks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Label of a target that does not count."""
CPU_CHUNK = 1024
"""Targets of a chunk on a CPU: fewer make small matrix products, more do not fit into the cache."""
CPU_STEP = 128
"""Chunks on a CPU have a multiple of so many rows."""


def head_nll(
    hidden_nD: Tensor,
    weight_VD: Tensor,
    labels_n: Tensor,
    masks_MV: Tensor | None = None,
    mask_n: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden_nD @ weight_VD.T`, in the precision of autocast if that is enabled.

    The gradient is computed in the forward pass, one chunk of targets at a time, so that no tensor of size [n, V]
    stays in memory and the softmax is computed once.

    Args:
        hidden_nD: Inputs of the output layer.
        weight_VD: Weights of the output layer.
        labels_n: Ids of the targets.
        masks_MV: bool, token masks. If given, the softmax of a target is over the ids that its mask allows.
        mask_n: Index of the mask of each target, which allows its label.

    Returns:
        The sum in nats, which has a gradient, and the nats of each target [n], which have none.
    """
    if masks_MV is not None and mask_n is not None:
        several_M = masks_MV.sum(dim=1) != 1
        if not several_M.all():  # the loss of a target that is the only id its mask allows is 0
            several_n = several_M[mask_n]
            hidden_oD, labels_o, mask_o = (of_n[several_n] for of_n in (hidden_nD, labels_n, mask_n))
            nats, nll_o = _HeadNll.apply(hidden_oD, weight_VD, labels_o, masks_MV, mask_o)
            nll_n = nll_o.new_zeros(len(labels_n))
            nll_n[several_n] = nll_o
            return nats, nll_n
    nats, nll_n = _HeadNll.apply(hidden_nD, weight_VD, labels_n, masks_MV, mask_n)
    return nats, nll_n


def _padded(rows_cX: Tensor) -> Tensor:
    """On a CPU the rows of a chunk with zeros below, so that chunks have few sizes.

    oneDNN, which multiplies bf16 there, keeps what it prepared for each of the last 1024 shapes, about a megabyte each:
    with a last chunk of another size in every step, memory grows by gigabytes.
    """
    fill = -len(rows_cX) % CPU_STEP if rows_cX.device.type == "cpu" else 0
    return F.pad(rows_cX, (0, 0, 0, fill)) if fill else rows_cX


def _log_p(logits_cV: Tensor, masks_MV: Tensor | None, mask_c: Tensor | None) -> Tensor:
    """[c, V] log probabilities, in float32; the logits are overwritten."""
    if masks_MV is not None and mask_c is not None:
        logits_cV.masked_fill_(masks_MV[mask_c].logical_not_(), -torch.inf)
    return logits_cV.log_softmax(dim=1)


class _HeadNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nD: Tensor,
        weight_VD: Tensor,
        labels_n: Tensor,
        masks_MV: Tensor | None,
        mask_n: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        device = hidden_nD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
        size = CPU_CHUNK if device == "cpu" else max(len(labels_n), 1)
        nll_n = hidden_nD.new_empty(len(labels_n), dtype=torch.float32)
        d_hidden_nD = torch.empty_like(hidden_nD) if ctx.needs_input_grad[0] else None
        d_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        with torch.autocast(device, enabled=False):
            cast_VD = weight_VD.to(dtype)
            for first in range(0, len(labels_n), size):
                chunk = slice(first, first + size)
                hidden_pD, labels_c1 = _padded(hidden_nD[chunk].to(dtype)), labels_n[chunk, None]
                logits_cV = (hidden_pD @ cast_VD.T)[: len(labels_c1)].float()
                log_p_cV = _log_p(logits_cV, masks_MV, None if mask_n is None else mask_n[chunk])
                nll_n[chunk] = -log_p_cV.gather(1, labels_c1)[:, 0]
                if d_hidden_nD is None and d_weight_VD is None:
                    continue
                minus_c1 = torch.full_like(labels_c1, -1, dtype=torch.float32)
                d_logits_pV = _padded(log_p_cV.exp_().scatter_add_(1, labels_c1, minus_c1).to(dtype))
                if d_hidden_nD is not None:
                    d_hidden_nD[chunk] = (d_logits_pV @ cast_VD)[: len(labels_c1)]
                if d_weight_VD is not None:
                    d_weight_VD += d_logits_pV.T @ hidden_pD
        ctx.save_for_backward(d_hidden_nD, d_weight_VD)
        ctx.mark_non_differentiable(nll_n)
        return nll_n.sum(), nll_n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden_nD, d_weight_VD = ctx.saved_tensors
        scale = grads[0]  # gradient of the sum; the other output has none
        return (
            None if d_hidden_nD is None else d_hidden_nD * scale.to(d_hidden_nD.dtype),
            None if d_weight_VD is None else d_weight_VD * scale.to(d_weight_VD.dtype),
            *(None, None, None),
        )
