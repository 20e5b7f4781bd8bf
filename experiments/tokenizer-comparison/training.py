"""Training by the library's LightningModule, with a schedule and a length in notes instead of steps.

Shapes: B rows of a batch, C tokens of a window, V ids.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from corpus import Batches, Ids
from representations import Tokens
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM

from pianolm.lm.loss import IGNORE, head_nll
from pianolm.lm.module import LanguageModule, TargetLosses
from pianolm.lm.optimizer import OptimizerSettings
from pianolm.lm.scorer import target_states
from pianolm.training.throughput import Stopwatch

WEIGHT_DECAY = {"adamw": 0.1, "muon": 0.01}
"""Of each optimizer, as in `conf/optimizer`."""
MUON_OVER_ADAMW = 10
"""Learning rate of Muon over that of AdamW beside it, as in `conf/optimizer`."""
SCHEDULE_STEPS = 10_000
"""Resolution of the learning-rate schedule: parts of the budget of notes."""


class NotesModule(LanguageModule):
    """A LanguageModule of any tokenization that trains for a number of notes.

    Args:
        model: The network.
        tokens: Its tokens.
        optimizer: adamw or muon.
        learning_rate: At its peak; of Muon that of the matrices.
        warmup: Part of the notes over which the learning rate rises.
        notes: Notes to train on.
        constrained: Whether each target is learned as one of the ids of its token mask.

    Attributes:
        tokens: The same.
        notes_seen: Notes in the targets of all steps so far.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokens: Tokens,
        optimizer: str,
        learning_rate: float,
        warmup: float,
        notes: int,
        constrained: bool,
    ) -> None:
        settings = OptimizerSettings(
            name=optimizer,
            lr=learning_rate,
            adamw_lr=learning_rate / MUON_OVER_ADAMW if optimizer == "muon" else None,
            betas=(0.9, 0.95),
            weight_decay=WEIGHT_DECAY[optimizer],
            warmup_steps=round(warmup * SCHEDULE_STEPS),
            min_lr_fraction=0.1,
            max_steps=SCHEDULE_STEPS,
        )
        super().__init__(model, settings, np.zeros_like(tokens.type_V, np.uint8), tokens.notes_V)
        self.notes_seen, self._notes = 0, notes
        self._notes_V = torch.from_numpy(tokens.notes_V)
        self.tokens = tokens
        self._masks: nn.Module | None = tokens.masked_targets() if constrained else None

    def target_losses(self, batch: Mapping[str, Any]) -> TargetLosses:
        """Losses under the token masks of the tokens, whatever their grammar is."""
        ids, labels = batch["input_ids"], batch["labels"]
        states = target_states(self.model, ids, labels)
        if self._masks is None:
            return TargetLosses(*head_nll(*states), states.labels)
        mask_BC = self._masks(ids, labels, None)
        losses = head_nll(*states, self._masks.masks, mask_BC[labels != IGNORE])
        return TargetLosses(*losses, states.labels)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        labels = batch["labels"].cpu()
        self.notes_seen += int(
            self._notes_V[labels[labels != IGNORE]].sum()
        )  # before the schedule's next step
        return loss

    def configure_optimizers(self) -> Any:
        """The library's optimizer; its schedule advances with the notes seen."""
        configured = super().configure_optimizers()

        def factor(step: int) -> float:
            return self.settings.factor(self.notes_seen * SCHEDULE_STEPS // self._notes)

        configured["lr_scheduler"]["scheduler"] = LambdaLR(configured["optimizer"], factor)
        return configured


class Curve(L.Callback):
    """Stops after the budget of notes, and calls `score` after equal parts of it.

    Attributes:
        seconds: Training time without these calls.
    """

    def __init__(self, notes: int, points: int, score: Callable[[int], None]) -> None:
        self._notes, self._points, self._score = notes, points, score
        self._scored, self._stopwatch = 0, Stopwatch()

    @property
    def seconds(self) -> float:
        return self._stopwatch.seconds

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._stopwatch.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, NotesModule), "which counts notes"
        seen = module.notes_seen
        if seen >= min((self._scored + 1) * self._notes // self._points, self._notes):
            self._stopwatch.stop()
            self._scored = seen * self._points // self._notes
            self._score(seen)
            module.model.train()
            self._stopwatch.start()
        trainer.should_stop = seen >= self._notes

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._stopwatch.stop()


@dataclass(frozen=True)
class Trained:
    """Figures of a finished training run."""

    seconds: float
    notes: int
    steps: int


def train(
    module: NotesModule,
    pieces: list[Ids],
    window: int,
    batch: int,
    seed: int,
    curve: Curve,
    device: str,
    precision: str,
) -> Trained:
    """Trains on windows of the pieces until the module has seen its notes."""
    with _only_errors_of_lightning():
        return _train(
            module,
            DataLoader(Batches(pieces, module.tokens, window, batch, seed), batch_size=None),
            curve,
            device,
            precision,
        )


@contextmanager
def _only_errors_of_lightning() -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _train(
    module: NotesModule, loader: DataLoader[Any], curve: Curve, device: str, precision: str
) -> Trained:
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=-1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        log_every_n_steps=10**9,
        callbacks=[curve],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, val_dataloaders=[])
    return Trained(curve.seconds, module.notes_seen, trainer.global_step)
