"""The LightningModule of the language model.

Shapes: B rows, T inputs of a row, V ids, n targets that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM

from pianolm.lm.embedding import inputs_and_head
from pianolm.lm.loss import IGNORE, head_nll
from pianolm.lm.masked_targets import MaskedTargets
from pianolm.lm.model import packing
from pianolm.lm.optimizer import OptimizerSettings, Schedule, make_optimizer
from pianolm.lm.scorer import TokenScorer, target_states
from pianolm.tokenizer.grammar import Grammar
from pianolm.training.sharding import is_sharded, shard
from pianolm.training.throughput import MonitoredModule

CHECKPOINT_KEY = "language_model"
"""Key of a checkpoint for the counters and the metrics of the last validation."""
_COUNTERS = "tokens_seen", "inputs_seen"


class TargetLosses(NamedTuple):
    """Losses of the targets of a batch that count.

    Attributes:
        nats: Their sum, which has a gradient.
        nll_n: Nats of each target, without gradient.
        labels_n: Ids of the targets.
    """

    nats: Tensor
    nll_n: Tensor
    labels_n: Tensor


class LanguageModule(MonitoredModule):
    """Trains a Llama on the batches of `pianolm.lm.datamodule`.

    Args:
        model: The network.
        settings: Of the optimizer.
        kind_of: uint8 [V], the `Kind` of every id.
        notes_per_id: int64 [V], notes that each id strikes.
        unigram_entropy: Logged beside the validation loss as a baseline.
        grammar: If given, the softmax at each target is over the ids that the token mask allows there, in training
            and in validation.
        hyperparameters: Plain containers to save as `hparams`: the groups model, optimizer, loader and loss.

    Attributes:
        val_metrics: Of the last validation; saved in the checkpoint made after it.
        tokens_seen: Inputs other than PAD, over all steps and processes.
        inputs_seen: Inputs including PAD.
    """

    monitor = "val/loss"

    def __init__(
        self,
        model: LlamaForCausalLM,
        settings: OptimizerSettings,
        kind_of: NDArray[np.uint8],
        notes_per_id: NDArray[np.int64],
        unigram_entropy: float | None = None,
        grammar: Grammar | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__("tokens")
        self.save_hyperparameters(dict(hyperparameters or {}), ignore=["kind_of", "notes_per_id"])
        self.model = model
        self.settings = settings
        self.val_metrics: dict[str, float] = {}
        self.tokens_seen = self.inputs_seen = 0
        self._unigram_entropy = unigram_entropy
        self._masked_targets = None if grammar is None else MaskedTargets(grammar)
        self._kind_of, self._notes_per_id = torch.from_numpy(kind_of), torch.from_numpy(notes_per_id)
        self._scorer, self._train_scorer = self.new_scorer(), self.new_scorer()

    def forward(self, input_ids_BT: Tensor, position_ids_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V].

        Args:
            input_ids_BT: Inputs.
            position_ids_BT: Positions that start at 0 in every window of packed rows; None if no row is packed.
        """
        inputs, head = inputs_and_head(self.model, input_ids_BT)
        return head(self.model.model(**inputs, use_cache=False, **packing(position_ids_BT)).last_hidden_state)

    def target_losses(self, batch: Mapping[str, Any]) -> TargetLosses:
        """Losses of the targets that count, row by row. Only their logits are computed."""
        ids, labels, positions = batch["input_ids"], batch["labels"], batch.get("position_ids")
        states = target_states(self.model, ids, labels, **packing(positions))
        masks: tuple[Tensor, ...] = ()
        if self._masked_targets is not None:
            mask_BT = self._masked_targets(ids, labels, positions)
            masks = self._masked_targets.masks, mask_BT[labels != IGNORE]
        return TargetLosses(*head_nll(*states, *masks), states.labels)

    def new_scorer(self) -> TokenScorer:
        """Empty sums of losses on the device of the module."""
        return TokenScorer(self._kind_of, self._notes_per_id, self.device)

    def _score(self, scorer: TokenScorer, batch: Mapping[str, Any], losses: TargetLosses) -> None:
        """Adds the losses of a batch to the sums of a scorer."""
        scorer.add(losses.nll_n, losses.labels_n, batch["performance"][batch["labels"] != IGNORE])

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of a micro-batch, scaled so that its gradient is that of the mean over the *global* batch.

        The sum of nats is divided by the targets of all processes and micro-batches. Lightning divides the loss by the
        number of micro-batches, and DDP averages gradients over processes; both factors are multiplied back.
        """
        accumulate = self.trainer.accumulate_grad_batches
        losses = self.target_losses(batch)
        if batch_idx % accumulate == 0:
            self._train_scorer = self.new_scorer()
        if self.is_logging_step:
            self._score(self._train_scorer, batch, losses)
        if (batch_idx + 1) % accumulate == 0:
            self._log_step(batch)
        return losses.nats * (self.trainer.world_size * accumulate / batch["n_targets"])

    def _log_step(self, batch: Mapping[str, Any]) -> None:
        """Counts an optimizer step at its last micro-batch, and logs it when a row is due."""
        self.tokens_seen += batch["n_tokens"]
        self.inputs_seen += batch["n_inputs"]
        self.log_throughput(batch["n_tokens"])
        if not self.is_logging_step:
            return
        metrics = {f"train/{name}": value for name, value in self._metrics(self._train_scorer).items()}
        metrics["train/padding_fraction"] = self.padding_fraction
        self.log_dict({**metrics, "tokens_seen": float(self.tokens_seen)})

    @property
    def padding_fraction(self) -> float:
        """Fraction of PAD among the inputs seen."""
        return 1 - self.tokens_seen / max(self.inputs_seen, 1)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Adds the losses of a batch to the sums."""
        self._score(self._scorer, batch, self.target_losses(batch))

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Adds the losses of a batch to the sums."""
        self._score(self._scorer, batch, self.target_losses(batch))

    def on_validation_epoch_start(self) -> None:
        """Clears the sums."""
        self._scorer = self.new_scorer()

    def on_test_epoch_start(self) -> None:
        """Clears the sums."""
        self._scorer = self.new_scorer()

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics over all batches of all processes."""
        self.val_metrics = {f"val/{name}": value for name, value in self._metrics(self._scorer).items()}
        if self._unigram_entropy is not None:
            self.val_metrics["val/unigram_entropy"] = self._unigram_entropy
        self.log_dict(self.val_metrics, sync_dist=self.trainer.world_size > 1)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics over all batches of all processes."""
        metrics = {f"test/{name}": value for name, value in self._metrics(self._scorer).items()}
        self.log_dict(metrics, sync_dist=self.trainer.world_size > 1)

    def _metrics(self, scorer: TokenScorer) -> dict[str, float]:
        """Metrics of the sums over all processes."""
        scorer.sums = self.trainer.strategy.reduce(scorer.sums, reduce_op="sum")
        return scorer.metrics()

    def configure_model(self) -> None:
        """Divides the weights among the processes where the strategy asks for it (`hardware=fsdp`)."""
        if self.device_mesh is not None and not is_sharded(self):
            shard(self, self.model.model.layers, ["target_losses"])

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule, which advances once per optimizer step."""
        optimizer = make_optimizer(self.model, self.settings)
        scheduler = Schedule(optimizer, self.settings)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counters and the metrics of the last validation, as plain numbers."""
        checkpoint[CHECKPOINT_KEY] = {
            **{name: getattr(self, name) for name in _COUNTERS},
            "val_metrics": dict(self.val_metrics),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counters and the metrics of the last validation."""
        saved = checkpoint[CHECKPOINT_KEY]
        for name in _COUNTERS:
            setattr(self, name, saved[name])
        self.val_metrics = dict(saved["val_metrics"])
