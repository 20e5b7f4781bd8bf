"""Sums that metrics are made of: kept over batches and processes, divided once at the end.

Shapes: V ids, n targets, B rows, T inputs of a row.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind

_KIND_NAMES = {
    "tempo": (Kind.TEMPO,),
    "pitch": (Kind.PITCH,),
    "pattern": CODE_KINDS,
    "velocity": (Kind.VELOCITY,),
    "bar": (Kind.BAR,),
    "age": (Kind.AGE,),
    **{kind.name.lower(): (kind,) for kind in CODE_KINDS},
}


class TokenLosses:
    """Sums of negative log-likelihoods by kind of token, and those of performances over their struck notes.

    Args:
        kind_of: uint8 [V], the `Kind` of every id.
        strikes: int64 [V], notes that each id strikes.
        device: Where the sums are kept.
    """

    def __init__(self, kind_of: Tensor, strikes: Tensor, device: torch.device | str = "cpu") -> None:
        self._kind_of = kind_of.to(device, torch.int64)
        self._strikes = strikes.to(device, torch.float64)
        # A row a kind: nats and targets. The last row: nats of performances and their struck notes.
        self.sums = torch.zeros(len(Kind) + 1, 2, dtype=torch.float64, device=device)

    def add(self, nll_n: Tensor, labels_n: Tensor, performance_n: Tensor) -> None:
        """Adds n targets: their nats, their ids, and whether they are of a performance that counts."""
        nll = nll_n.detach().to(torch.float64)
        kind = self._kind_of[labels_n]
        self.sums[:-1, 0].index_add_(0, kind, nll)
        self.sums[:-1, 1].index_add_(0, kind, torch.ones_like(nll))
        self.sums[-1, 0] += nll[performance_n].sum()
        self.sums[-1, 1] += self._strikes[labels_n[performance_n]].sum()

    def metrics(self) -> dict[str, float]:
        """`loss` in nats a target, `loss_<kind>` of kinds that occur, `bits_per_note` if there are notes."""
        sums = self.sums.cpu()
        nats, targets = sums[:-1].sum(dim=0).tolist()
        found = {"loss": nats / max(targets, 1)}
        for name, kinds in _KIND_NAMES.items():
            kind_nats, kind_targets = sums[list(kinds)].sum(dim=0).tolist()
            if kind_targets:
                found[f"loss_{name}"] = kind_nats / kind_targets
        performance_nats, notes = sums[-1].tolist()
        if notes:
            found["bits_per_note"] = performance_nats / math.log(2) / notes
        return found


def unigram_cross_entropy(train_counts: NDArray[np.int64], target_counts: NDArray[np.int64]) -> float:
    """Cross-entropy in nats of targets [V] under training frequencies [V] with add-one smoothing."""
    log_p = np.log((train_counts + 1) / (train_counts.sum() + train_counts.size))
    return float(-(target_counts * log_p).sum() / max(target_counts.sum(), 1))
