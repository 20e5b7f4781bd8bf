"""Optimizer `adamw` (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019)."""

from __future__ import annotations

import torch
from torch import nn

from pianolm.lm.optimizer import OptimizerSettings, parameter_groups


def make(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW with `optimizer.betas`."""
    groups = parameter_groups(model, settings)
    return torch.optim.AdamW(groups, settings.lr, settings.betas, **settings.options)
