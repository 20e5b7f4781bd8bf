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
from torch.optim.lr_scheduler import LambdaLR

from pianolm.errors import UserError
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
        schedule: cosine or wsd (warm-up, stable, decay).
        decay_fraction: Fraction of all steps in which `wsd` decays.
        adamw_lr: Peak learning rate of what `muon` leaves to AdamW; None for `lr`.
        options: Further arguments of the optimizer.
    """

    name: str
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: int
    min_lr_fraction: float
    max_steps: int
    schedule: str = "cosine"
    decay_fraction: float = 0.2
    adamw_lr: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, optimizer: Mapping[str, Any], max_steps: int) -> OptimizerSettings:
        """Settings of the group `optimizer`."""
        first, second = optimizer["betas"]
        adamw_lr = optimizer["adamw_lr"]
        names = ("lr", "weight_decay", "decay_fraction", "min_lr_fraction")
        return cls(
            name=optimizer["name"],
            betas=(float(first), float(second)),
            schedule=optimizer["schedule"],
            warmup_steps=int(optimizer["warmup_steps"]),
            max_steps=max_steps,
            adamw_lr=None if adamw_lr is None else float(adamw_lr),
            options=optimizer["options"],
            **{name: float(optimizer[name]) for name in names},
        )

    @property
    def _warmup(self) -> int:
        return min(self.warmup_steps, self.max_steps // 2)

    @property
    def decay_start(self) -> int | None:
        """Steps before the decay of `wsd`; None with another schedule.

        The state after them is that of any longer run, which may thus continue from it.
        """
        if self.schedule != "wsd":
            return None
        return max(self.max_steps - round(self.decay_fraction * self.max_steps), self._warmup)

    def factor(self, step: int) -> float:
        """Factor of the peak learning rate in an optimizer step, counted from 0: linear warm-up, then the schedule.

        `wsd` decays by 1 − √progress (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
        Durations", 2024).
        """
        if step < self._warmup:
            return (step + 1) / self._warmup
        if (start := self.decay_start) is not None:
            progress = max(step + 1 - start, 0) / max(self.max_steps - start, 1)
            left = 1 - math.sqrt(min(progress, 1.0))
        else:
            progress = (step - self._warmup) / max(self.max_steps - 1 - self._warmup, 1)
            left = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return self.min_lr_fraction + (1 - self.min_lr_fraction) * left


class Schedule(LambdaLR):
    """Learning rates of every step by `OptimizerSettings.factor`, also after loading a state.

    A run that extends another has its own peak and number of steps, so only the step comes from the state.
    """

    def __init__(self, optimizer: Optimizer, settings: OptimizerSettings) -> None:
        super().__init__(optimizer, settings.factor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues at the step of a state, and sets the rates of the optimizer, whose state is loaded before."""
        super().load_state_dict({**state_dict, "base_lrs": self.base_lrs})
        self._last_lr = [base * self.lr_lambdas[0](self.last_epoch) for base in self.base_lrs]
        for group, peak, lr in zip(self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True):
            group["initial_lr"], group["lr"] = peak, lr


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimizer that the settings name, over all parameters of a model.

    Raises:
        UserError: It does not take `optimizer.options`.
    """
    module = importlib.import_module(f"pianolm.lm.optimizers.{settings.name}")
    try:
        optimizer: Optimizer = module.make(model, settings)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"optimizer.options={dict(settings.options)} found, which optimizer={settings.name} does not take: {error}"
        ) from error
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
