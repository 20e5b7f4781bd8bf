"""Optimizer `muon`: Muon for the matrices of the layers, AdamW for embeddings, norms and the output layer.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) takes Nesterov momentum of the
gradient and replaces it by a matrix of nearly equal singular values, found by five Newton–Schulz steps. The rate is
multiplied by √max(1, rows / columns).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from pianolm.lm.optimizer import OptimizerSettings, parameter_groups


def make(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Muon at `optimizer.lr` beside AdamW at `optimizer.adamw_lr`, in one optimizer.

    `optimizer.options` holds further arguments of `torch.optim.Muon`, such as `momentum`.
    """
    decayed, rest = parameter_groups(model, settings)
    head = {id(parameter) for parameter in getattr(model, "lm_head", nn.Identity()).parameters()}
    matrices = [parameter for parameter in decayed["params"] if id(parameter) not in head]
    others = [{**decayed, "params": [p for p in decayed["params"] if id(p) in head]}, rest]
    return MuonWithAdamW(
        Muon(matrices, settings.lr, settings.weight_decay, **settings.options),
        AdamW(
            [group for group in others if group["params"]], settings.adamw_lr or settings.lr, settings.betas
        ),
    )


class MuonWithAdamW(Optimizer):
    """Two optimizers as one: their parameter groups in a row, and one state, so that checkpoints hold both.

    Args:
        muon: Has one parameter group, which becomes the first.
        adamw: Its groups follow.
    """

    def __init__(self, muon: Muon, adamw: AdamW) -> None:
        self._muon, self._adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of both.

        Args:
            closure: Computes loss and gradients first.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # loading a state replaces groups and state, so the two get them anew
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        for part in (self._muon, self._adamw):
            part.state = self.state
            part.step()
        return loss
