"""The LightningModule of the language model.

Shapes: B rows, T inputs of a row, V ids, D width, n targets that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaForCausalLM

from pianolm.lm.loss import IGNORE, head_nll
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.model import packing
from pianolm.lm.optimizer import OptimizerSettings, parameter_groups
from pianolm.lm.scorer import TokenScorer, target_states
from pianolm.tokenizer.grammar import Grammar
from pianolm.training.throughput import MonitoredModule

_COUNTERS = "tokens_seen", "slots_seen"


class TargetLosses(NamedTuple):
    """Nats of a batch, which have a gradient; those of each target [n], which have none; and the targets' ids [n]."""

    nats: Tensor
    nll_n: Tensor
    labels_n: Tensor


class LanguageModule(MonitoredModule):
    """Trains a Llama on the batches of `pianolm.lm.datamodule`.

    Args:
        model: The network.
        settings: Of the optimizer.
        kind_of: uint8 [V], the `Kind` of every id.
        strikes: int64 [V], notes that each id strikes.
        unigram_entropy: Logged beside the validation loss, as what to compare it with.
        grammar: Where it is given, each target is learned and validated as one among the ids that it allows there.

    Attributes:
        val_metrics: Of the last validation; they travel with the checkpoint that was made at it.
        tokens_seen: Inputs that were not PAD, over all steps and processes.
        slots_seen: Inputs with PAD.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        settings: OptimizerSettings,
        kind_of: NDArray[np.uint8],
        strikes: NDArray[np.int64],
        unigram_entropy: float | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        super().__init__("tokens")
        self.model = model
        self.settings = settings
        self.val_metrics: dict[str, float] = {}
        self.tokens_seen = self.slots_seen = 0
        self._unigram_entropy = unigram_entropy
        self._masked_targets = None if grammar is None else MaskedTargets(grammar)
        self._kind_of, self._strikes = torch.from_numpy(kind_of), torch.from_numpy(strikes)
        self._losses = TokenScorer(self._kind_of, self._strikes)
        self._train_losses = TokenScorer(self._kind_of, self._strikes)

    @property
    def padding_fraction(self) -> float:
        """PAD among the inputs seen."""
        return 1 - self.tokens_seen / max(self.slots_seen, 1)

    def target_nll(self, batch: Mapping[str, Any]) -> TargetLosses:
        """Losses of the labels that count, row by row. Logits are made only there."""
        states = target_states(
            self.model, batch["input_ids"], batch["labels"], **packing(batch.get("position_ids"))
        )
        sets: tuple[Tensor, ...] = ()
        if self._masked_targets is not None:
            mask_BT = self._masked_targets(batch["input_ids"], batch["labels"], batch.get("position_ids"))
            sets = self._masked_targets.masks, mask_BT[batch["labels"] != IGNORE]
        return TargetLosses(*head_nll(*states, *sets), states.labels)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of a micro-batch, scaled so that its gradient is that of the mean over the *global* batch.

        The sum of nats is divided by the targets of all processes and micro-batches. Lightning divides the
        loss by the micro-batches and DDP averages gradients over processes; both are multiplied back.
        """
        nats, nll_n, labels_n = self.target_nll(batch)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._train_losses = TokenScorer(self._kind_of, self._strikes, self.device)
        if self.is_logging_step:
            self._train_losses.add(nll_n, labels_n, batch["performance"][batch["labels"] != IGNORE])
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self._log_step(batch)
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return nats * (scale / batch["n_targets"])

    def _log_step(self, batch: Mapping[str, Any]) -> None:
        """Counts an optimizer step at its last micro-batch, and logs it when a row is due."""
        self.tokens_seen += batch["n_tokens"]
        self.slots_seen += batch["n_slots"]
        self.log_throughput(batch["n_tokens"])
        if not self.is_logging_step:
            return
        self._train_losses.sums = self.trainer.strategy.reduce(self._train_losses.sums, reduce_op="sum")
        self.log_dict(
            {
                **{f"train/{name}": value for name, value in self._train_losses.metrics().items()},
                "train/padding_fraction": self.padding_fraction,
                "tokens_seen": float(self.tokens_seen),
            }
        )

    def on_validation_epoch_start(self) -> None:
        """Empties the sums."""
        self._losses = TokenScorer(self._kind_of, self._strikes, self.device)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Adds a batch to the sums."""
        _, nll_n, labels_n = self.target_nll(batch)
        self._losses.add(nll_n, labels_n, batch["performance"][batch["labels"] != IGNORE])

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of all batches of all processes."""
        self._losses.sums = self.trainer.strategy.reduce(self._losses.sums, reduce_op="sum")
        self.val_metrics = {f"val/{name}": value for name, value in self._losses.metrics().items()}
        if self._unigram_entropy is not None:
            self.val_metrics["val/unigram_entropy"] = self._unigram_entropy
        self.log_dict(self.val_metrics, sync_dist=self.trainer.world_size > 1)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, one step of it an optimizer step."""
        groups = parameter_groups(self.model, self.settings)
        optimizer = torch.optim.AdamW(groups, self.settings.lr, self.settings.betas)
        scheduler = LambdaLR(optimizer, self.settings.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counters and the last validation, plain numbers only."""
        checkpoint["language_model"] = {
            **{name: getattr(self, name) for name in _COUNTERS},
            "val_metrics": dict(self.val_metrics),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back."""
        saved = checkpoint["language_model"]
        for name in _COUNTERS:
            setattr(self, name, saved[name])
        self.val_metrics = dict(saved["val_metrics"])
