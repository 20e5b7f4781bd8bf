"""AdamW with a warm-up and a cosine down to 0, for the small networks beside the language model."""

from __future__ import annotations

import math

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn


def adamw_with_cosine(
    module: nn.Module, lr: float, max_steps: int, warmup_steps: int, weight_decay: float
) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns; matrices are decayed, vectors are not.

    Args:
        module: Its parameters are trained.
        lr: Peak learning rate.
        max_steps: Optimizer steps.
        warmup_steps: Steps to the peak.
        weight_decay: Of matrices.
    """
    groups = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in module.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)

    def factor(step: int) -> float:
        progress = min(step / max_steps, 1.0)
        return min((step + 1) / max(warmup_steps, 1), 0.5 + 0.5 * math.cos(math.pi * progress))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
