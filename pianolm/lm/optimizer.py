"""Settings of the language model's optimizer: parameter groups and learning-rate schedule.

The optimizers themselves are the files of `pianolm.lm.optimizers`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from pianolm.lm.model import codebook_embeddings


@dataclass(frozen=True)
class OptimizerSettings:
    """The `optimizer` options and the length of training.

    Attributes:
        name: Module of `pianolm.lm.optimizers`.
        lr: Peak learning rate.
        betas: Decay rates of AdamW's moments.
        weight_decay: Of weight matrices; embeddings and norms have none.
        warmup_steps: Steps to the peak, at most half of all steps, so that short runs reach it.
        min_lr_fraction: Fraction of the peak at the last step.
        max_steps: Optimizer steps of the run.
        options: Further arguments of the optimizer.
    """

    name: str
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: int
    min_lr_fraction: float
    max_steps: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, optimizer: Mapping[str, Any], max_steps: int) -> OptimizerSettings:
        """Settings of the group `optimizer`."""
        first, second = optimizer["betas"]
        numbers = {key: float(optimizer[key]) for key in ("lr", "weight_decay", "min_lr_fraction")}
        return cls(
            name=optimizer["name"],
            betas=(float(first), float(second)),
            warmup_steps=int(optimizer["warmup_steps"]),
            max_steps=max_steps,
            options=optimizer["options"],
            **numbers,
        )

    def factor(self, step: int) -> float:
        """Factor of the peak learning rate in an optimizer step, counted from 0: linear warm-up, then half a cosine."""
        warmup = min(self.warmup_steps, self.max_steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(self.max_steps - 1 - warmup, 1), 1.0)
        return self.min_lr_fraction + (1 - self.min_lr_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimizer that the settings name, over all parameters of a model."""
    module = importlib.import_module(f"pianolm.lm.optimizers.{settings.name}")
    optimizer: Optimizer = module.make(model, settings)
    return optimizer


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Two groups: weight matrices, which decay, and embeddings (with a tied output layer) and norms, which do not.

    The projection of a codebook embedding does not decay either: only its sum with the free part counts.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in codebook_embeddings(model):
        embeddings |= {id(module.free), id(module.projection.weight)}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim >= 2 and id(parameter) not in embeddings].append(parameter)
    return [
        {"params": groups[True], "weight_decay": settings.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
