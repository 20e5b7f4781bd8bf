"""The optimizer of the language model: parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from pianolm.errors import UserError
from pianolm.lm.model import codebook_embeddings


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a linear warm-up and half a cosine down to a floor.

    Attributes:
        lr: Peak learning rate.
        min_lr_fraction: Of the peak, reached at the last step.
        warmup_steps: To the peak; at most half of all steps, so that short runs reach it.
        max_steps: Optimizer steps in all.
        weight_decay: Of matrices; embeddings and norms have none.
        betas: Of AdamW.
    """

    lr: float
    min_lr_fraction: float
    warmup_steps: int
    max_steps: int
    weight_decay: float
    betas: tuple[float, float]

    @classmethod
    def from_config(cls, settings: Mapping[str, Any]) -> OptimizerSettings:
        """Takes its keys from `optimizer`, and `max_steps`.

        Raises:
            UserError: A value is out of range.
        """
        betas = tuple(float(beta) for beta in settings["betas"])
        checks = {
            "lr": settings["lr"] > 0,
            "min_lr_fraction": 0 <= settings["min_lr_fraction"] <= 1,
            "warmup_steps": settings["warmup_steps"] >= 0,
            "max_steps": settings["max_steps"] >= 1,
            "weight_decay": settings["weight_decay"] >= 0,
            "betas": len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        }
        wrong = [f"optimizer.{name}={settings[name]}" for name, fits in checks.items() if not fits]
        if wrong:
            raise UserError(
                f"{', '.join(wrong)} out of range; see conf/optimizer/adamw.yaml for values that fit"
            )
        return cls(**{name: settings[name] for name in checks if name != "betas"}, betas=(betas[0], betas[1]))

    def factor(self, step: int) -> float:
        """What the peak learning rate is multiplied by in an optimizer step, counted from 0."""
        warmup = min(self.warmup_steps, self.max_steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(self.max_steps - 1 - warmup, 1), 1.0)
        return self.min_lr_fraction + (1 - self.min_lr_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


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
