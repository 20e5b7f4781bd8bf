"""The loss of the output layer. Logits are computed in chunks, used for loss and gradient, and dropped.

Shapes: n targets, o of them whose mask allows several ids, c of a chunk, p rows of it with padding, D width, V ids, S
ids of a span, M token masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Label of a target that does not count."""
CPU_CHUNK = 1024
"""Targets of a chunk on a CPU: fewer make small matrix products, more do not fit into the cache."""
CPU_STEP = 128
"""Chunks on a CPU have a multiple of so many rows."""
CPU_SPAN = 512
"""Spans of ids on a CPU begin and end at multiples of this, so that there are few of them."""


class Group(NamedTuple):
    """Consecutive targets whose ids lie in one span.

    Attributes:
        targets: How many.
        first: First id of the span.
        stop: Id after its last.
    """

    targets: int
    first: int
    stop: int


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
        masks_MV: bool, token masks. If given, the softmax of a target is over the ids that its mask allows; on a CPU
            logits are computed for the span of ids in which these lie.
        mask_n: Index of the mask of each target, which allows its label.

    Returns:
        The sum in nats, which has a gradient, and the nats of each target [n], which have none.
    """
    if masks_MV is None or mask_n is None:
        nats, nll_n = _HeadNll.apply(hidden_nD, weight_VD, labels_n, None, None, None)
        return nats, nll_n
    # the loss of a target that is the only id its mask allows is 0
    counted_o = (masks_MV.sum(dim=1) != 1)[mask_n].nonzero()[:, 0]
    groups = None
    if hidden_nD.device.type == "cpu":
        order_o, groups = _by_span(masks_MV, mask_n[counted_o])
        counted_o = counted_o[order_o]
    nats, nll_o = _HeadNll.apply(
        hidden_nD[counted_o], weight_VD, labels_n[counted_o], masks_MV, mask_n[counted_o], groups
    )
    nll_n = nll_o.new_zeros(len(labels_n))
    nll_n[counted_o] = nll_o
    return nats, nll_n


def _by_span(masks_MV: Tensor, mask_o: Tensor) -> tuple[Tensor, list[Group]]:
    """The order that brings targets together whose masks allow the same span of ids, and these groups.

    After a pitch come patterns, then velocities: more than half of all logits are outside the spans.
    """
    beyond = masks_MV.shape[1] + 1
    first_M, stop_M = _spans(masks_MV).T
    span_o = (first_M * beyond + stop_M)[mask_o]
    spans, sizes = span_o.unique(return_counts=True)
    groups = [
        Group(size, *divmod(span, beyond)) for span, size in zip(spans.tolist(), sizes.tolist(), strict=True)
    ]
    return span_o.argsort(stable=True), groups


def _spans(masks_MV: Tensor) -> Tensor:
    """[M, 2] first id, and id after the last, of the K blocks of `CPU_SPAN` ids between which a mask allows ids."""
    n_masks, n_ids = masks_MV.shape
    holds_MK = F.pad(masks_MV, (0, -n_ids % CPU_SPAN)).view(n_masks, -1, CPU_SPAN).any(dim=2)
    block_K = torch.arange(holds_MK.shape[1])
    first_M = torch.where(holds_MK, block_K, len(block_K)).amin(dim=1)
    stop_M = torch.where(holds_MK, block_K + 1, 0).amax(dim=1)
    return (torch.stack([first_M, stop_M], dim=1) * CPU_SPAN).clamp(max=n_ids)


def _padded(rows_cX: Tensor) -> Tensor:
    """On a CPU the rows of a chunk with zeros below, so that chunks have few sizes.

    oneDNN, which multiplies bf16 there, keeps what it prepared for each of the last 1024 shapes, about a megabyte each:
    with a last chunk of another size in every step, memory grows by gigabytes.
    """
    fill = -len(rows_cX) % CPU_STEP if rows_cX.device.type == "cpu" else 0
    return F.pad(rows_cX, (0, 0, 0, fill)) if fill else rows_cX


class _HeadNll(torch.autograd.Function):
    """See `head_nll`; `groups` None: one group, all ids."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nD: Tensor,
        weight_VD: Tensor,
        labels_n: Tensor,
        masks_MV: Tensor | None,
        mask_n: Tensor | None,
        groups: list[Group] | None,
    ) -> tuple[Tensor, Tensor]:
        device = hidden_nD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
        nll_n = hidden_nD.new_empty(len(labels_n), dtype=torch.float32)
        d_hidden_nD = torch.empty_like(hidden_nD) if ctx.needs_input_grad[0] else None
        d_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        groups = groups or [Group(len(labels_n), 0, len(weight_VD))]
        with torch.autocast(device, enabled=False):
            cast_VD = weight_VD.to(dtype)
            for chunk, ids in _chunks(groups, CPU_CHUNK if device == "cpu" else max(len(labels_n), 1)):
                weight_SD = cast_VD[ids]
                hidden_pD, labels_c1 = _padded(hidden_nD[chunk].to(dtype)), labels_n[chunk, None] - ids.start
                logits_cS = (hidden_pD @ weight_SD.T)[: len(labels_c1)].float()
                if masks_MV is not None and mask_n is not None:
                    logits_cS.masked_fill_(masks_MV[:, ids][mask_n[chunk]].logical_not_(), -torch.inf)
                log_p_cS = logits_cS.log_softmax(dim=1)
                nll_n[chunk] = -log_p_cS.gather(1, labels_c1)[:, 0]
                if d_hidden_nD is None and d_weight_VD is None:
                    continue
                minus_c1 = torch.full_like(labels_c1, -1, dtype=torch.float32)
                d_logits_pS = _padded(log_p_cS.exp_().scatter_add_(1, labels_c1, minus_c1).to(dtype))
                if d_hidden_nD is not None:
                    d_hidden_nD[chunk] = (d_logits_pS @ weight_SD)[: len(labels_c1)]
                if d_weight_VD is not None:
                    d_weight_VD[ids] += d_logits_pS.T @ hidden_pD
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
            *(None, None, None, None),
        )


def _chunks(groups: list[Group], size: int) -> Iterator[tuple[slice, slice]]:
    """The targets of each chunk, and the span of ids that their group has."""
    begin = 0
    for group in groups:
        end = begin + group.targets
        for start in range(begin, end, size):
            yield slice(start, min(start + size, end)), slice(group.first, group.stop)
        begin = end
