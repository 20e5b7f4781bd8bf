"""Scoring of target tokens.

Validation during training and `pianolm.evaluation.bits`, which `evaluate=lm` and the experiments use, score alike:
`target_states` runs the network and `pianolm.lm.loss.head_nll` gives the losses. `TokenScorer` sums those of training
and validation.

Shapes: B rows, T inputs of a row, n targets that count, D width, V ids.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.lm.embedding import inputs_and_head
from pianolm.lm.loss import IGNORE
from pianolm.tokenizer.vocabulary import CODE_KINDS, KIND_GROUPS, Kind

_LOSS_NAMES = {**KIND_GROUPS, **{kind.name.lower(): (kind,) for kind in CODE_KINDS}}


class TargetStates(NamedTuple):
    """What the losses of a batch are computed from.

    Attributes:
        hidden: [n, D] last hidden states at the targets that count, row by row.
        weight: [V, D] weights of the output layer.
        labels: [n] ids of these targets.
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor


def target_states(
    model: LlamaForCausalLM, input_ids_BT: Tensor, labels_BT: Tensor, **attention: Tensor
) -> TargetStates:
    """Runs a model without its output layer and selects the targets that count.

    Args:
        model: The network.
        input_ids_BT: Inputs. PAD stands only at the end of a row, so causal attention needs no mask for it.
        labels_BT: Targets, already shifted; −100 where none counts.
        attention: Further arguments of `LlamaModel`, such as `position_ids` and `attention_mask` of packed rows.
    """
    inputs, head = inputs_and_head(model, input_ids_BT)
    hidden_BTD = model.model(**inputs, use_cache=False, **attention).last_hidden_state
    counts_BT = labels_BT != IGNORE
    return TargetStates(hidden_BTD[counts_BT], head.weight, labels_BT[counts_BT])


class TokenScorer:
    """Sums of target losses by kind of token, and of performances over their struck notes.

    Args:
        kind_of: uint8 [V], the `Kind` of every id.
        notes_per_id: int64 [V], notes that each id strikes.
        device: Where the sums are kept.

    Attributes:
        sums: [kinds + 1, 2] float64. One row per `Kind`: nats and targets. Last row: nats of performances and their
            struck notes. Add the `sums` of several scorers, or reduce them over processes, before asking for metrics.
    """

    def __init__(self, kind_of: Tensor, notes_per_id: Tensor, device: torch.device | str = "cpu") -> None:
        self._kind_of = kind_of.to(device, torch.int64)
        self._notes_per_id = notes_per_id.to(device, torch.float64)
        self.sums = torch.zeros(len(Kind) + 1, 2, dtype=torch.float64, device=device)

    def add(self, nll_n: Tensor, labels_n: Tensor, performance_n: Tensor) -> None:
        """Adds n targets.

        Args:
            nll_n: Losses in nats.
            labels_n: Ids.
            performance_n: bool, whether the target belongs to a performance, so that it counts in `bits_per_note`.
        """
        nll = nll_n.detach().to(torch.float64)
        kind = self._kind_of[labels_n]
        self.sums[:-1, 0].index_add_(0, kind, nll)
        self.sums[:-1, 1].index_add_(0, kind, torch.ones_like(nll))
        self.sums[-1, 0] += nll[performance_n].sum()
        self.sums[-1, 1] += self._notes_per_id[labels_n[performance_n]].sum()

    def metrics(self) -> dict[str, float]:
        """`loss` in nats per target, `loss_<group>` of groups that occur, `bits_per_note` if there are notes."""
        sums = self.sums.cpu()
        nats, targets = sums[:-1].sum(dim=0).tolist()
        metrics = {"loss": nats / max(targets, 1)}
        for name, kinds in _LOSS_NAMES.items():
            group_nats, group_targets = sums[list(kinds)].sum(dim=0).tolist()
            if group_targets:
                metrics[f"loss_{name}"] = group_nats / group_targets
        performance_nats, notes = sums[-1].tolist()
        if notes:
            metrics["bits_per_note"] = performance_nats / math.log(2) / notes
        return metrics


def unigram_cross_entropy(train_counts: NDArray[np.int64], target_counts: NDArray[np.int64]) -> float:
    """Cross-entropy in nats of targets [V] under training frequencies [V] with add-one smoothing."""
    log_p = np.log((train_counts + 1) / (train_counts.sum() + train_counts.size))
    return float(-(target_counts * log_p).sum() / max(target_counts.sum(), 1))
