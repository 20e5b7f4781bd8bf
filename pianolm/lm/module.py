"""The language model: a Llama from a few numbers, and its training.

Shapes: B rows, T inputs of a row, V ids, D width, n targets that count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM

from pianolm.errors import UserError
from pianolm.lm.embedding import CodebookEmbedding, use_features
from pianolm.lm.induction_init import begin
from pianolm.lm.loss import IGNORE, head_nll
from pianolm.lm.masked_targets import LegalTargets
from pianolm.lm.scorer import TokenScorer, target_states
from pianolm.tokenizer.grammar import Grammar
from pianolm.training.throughput import MonitoredModule

EMBEDDINGS = ("codebook", "table")
_MODEL_KEYS = {
    *("width", "layers", "heads", "kv_heads", "ffn", "rope_theta", "tie_embeddings", "dropout"),
    *("embedding", "projection_lr"),
}
IN_GRAMMAR = "learned_in_grammar"
"""In the `config.json` of a model that never learned what the grammar does not allow."""
_RATE = "learning_rate"
"""Stands with a model's size because it depends on it; `trainer` takes it from there."""
_COUNTERS = "tokens_seen", "slots_seen"


def build_llama(
    settings: Mapping[str, Any],
    vocab_size: int,
    pad_id: int,
    bos_id: int,
    eos_id: int,
    context: int,
    features_VF: NDArray[np.float32] | None = None,
) -> LlamaForCausalLM:
    """A Llama with fresh weights.

    Where a layer adds to the residual stream it begins smaller by the root of all that add, 2 · layers (Radford et al.,
    "Language Models are Unsupervised Multitask Learners", 2019, section 2.3): the rows of embeddings are small, and
    what tokens are would else be lost among sums that say nothing yet (`experiments/codebook-embedding`). Only some
    attention of the first four layers begins by saying something, where embeddings are tied: see
    `pianolm.lm.induction_init`.

    Args:
        settings: `width`, `layers`, `heads`, `kv_heads` (None: as many as heads), `ffn`, `rope_theta`,
            `tie_embeddings`, `dropout` (of attention weights; Llama has no other), `embedding` (codebook or table),
            `projection_lr` (of a codebook embedding; see `CodebookEmbedding`).
        vocab_size: V.
        pad_id: Of PAD.
        bos_id: Of BOS.
        eos_id: Of EOS.
        context: Longest sequence it is trained on.
        features_VF: What each id is, for `embedding` codebook.

    Raises:
        UserError: A setting is missing or unknown, or the numbers do not fit together.
    """
    _check_model(settings)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings["width"],
        intermediate_size=settings["ffn"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        num_key_value_heads=settings["kv_heads"] or settings["heads"],
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": float(settings["rope_theta"])},
        tie_word_embeddings=bool(settings["tie_embeddings"]),
        attention_dropout=float(settings["dropout"]),
        pad_token_id=pad_id,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            for adds in (layer.self_attn.o_proj, layer.mlp.down_proj):
                adds.weight /= math.sqrt(2 * settings["layers"])
    if settings["embedding"] == "codebook":
        assert features_VF is not None, "a codebook embedding is made of features"
        use_features(model, features_VF, float(settings["projection_lr"]))
    if config.tie_word_embeddings:
        begin(model)
    return model


def _check_model(settings: Mapping[str, Any]) -> None:
    problems = [f"no model.{key}" for key in sorted(_MODEL_KEYS - set(settings))]
    problems += [f"unknown model.{key}" for key in sorted(set(settings) - _MODEL_KEYS - {_RATE})]
    if not problems:
        width, heads, kv_heads = (
            settings["width"],
            settings["heads"],
            settings["kv_heads"] or settings["heads"],
        )
        sizes = {key: settings[key] for key in ("width", "layers", "heads", "ffn")} | {"kv_heads": kv_heads}
        problems = [f"model.{key}={size!r} is no size" for key, size in sizes.items() if not _is_size(size)]
        if not problems and width % (2 * heads):
            problems.append(f"model.width={width} is no even multiple of model.heads={heads}")
        if not problems and heads % kv_heads:
            problems.append(f"model.heads={heads} is no multiple of model.kv_heads={kv_heads}")
        if not 0 <= settings["dropout"] < 1:
            problems.append(f"model.dropout={settings['dropout']} is not in 0 to 1")
        if settings["embedding"] not in EMBEDDINGS:
            problems.append(f"model.embedding={settings['embedding']!r} is none of {', '.join(EMBEDDINGS)}")
        if not settings["projection_lr"] > 0:
            problems.append(f"model.projection_lr={settings['projection_lr']} is not above 0")
    if problems:
        raise UserError(f"model: {', '.join(problems)}; see conf/model for settings that fit")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def codebook_embeddings(model: nn.Module) -> list[CodebookEmbedding]:
    """The computed embeddings of a model: one or none."""
    return [module for module in model.modules() if isinstance(module, CodebookEmbedding)]


def count_parameters(model: nn.Module) -> int:
    """Parameters as the model is published: tied ones once, and a table without the projection that makes it."""
    projections = sum(module.projection.weight.numel() for module in codebook_embeddings(model))
    return sum(parameter.numel() for parameter in model.parameters()) - projections


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with a linear warm-up and half a cosine down to a floor.

    Attributes:
        learning_rate: At its peak.
        min_lr_fraction: Of the peak, reached at the last step.
        warmup_steps: To the peak; at most half of all steps, so that short runs reach it.
        max_steps: Optimizer steps in all.
        weight_decay: Of matrices; embeddings and norms have none.
        betas: Of AdamW.
    """

    learning_rate: float
    min_lr_fraction: float
    warmup_steps: int
    max_steps: int
    weight_decay: float
    betas: tuple[float, float]

    @classmethod
    def from_config(cls, settings: Mapping[str, Any]) -> OptimizerSettings:
        """Takes its keys from `trainer`.

        Raises:
            UserError: A value is out of range.
        """
        betas = tuple(float(beta) for beta in settings["betas"])
        checks = {
            "learning_rate": settings["learning_rate"] > 0,
            "min_lr_fraction": 0 <= settings["min_lr_fraction"] <= 1,
            "warmup_steps": settings["warmup_steps"] >= 0,
            "max_steps": settings["max_steps"] >= 1,
            "weight_decay": settings["weight_decay"] >= 0,
            "betas": len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        }
        wrong = [f"trainer.{name}={settings[name]}" for name, fits in checks.items() if not fits]
        if wrong:
            raise UserError(
                f"{', '.join(wrong)} out of range; see conf/trainer/default.yaml for values that fit"
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
    """Parameter groups: matrices decay; embeddings (an output layer tied to one, too) and norms do not.

    The projection of a codebook embedding learns at a rate of its own and does not decay: whatever of a table it says,
    the free part makes up the rest, so that only the table counts.
    """
    computed = codebook_embeddings(model)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables |= {id(module.free) for module in computed}
    projections = {id(module.projection.weight) for module in computed}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if id(parameter) not in projections:
            groups[parameter.ndim >= 2 and id(parameter) not in tables].append(parameter)
    return [
        {"params": groups[True], "weight_decay": settings.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
        *(
            {
                "params": [module.projection.weight],
                "weight_decay": 0.0,
                "lr": settings.learning_rate * module.projection_lr,
            }
            for module in computed
        ),
    ]


def packing(position_ids_BT: Tensor | None) -> dict[str, Tensor]:
    """Arguments that keep attention inside the windows of packed rows; none where no row holds several.

    Args:
        position_ids_BT: Positions that begin at 0 in every window, or None.
    """
    if position_ids_BT is None:
        return {}
    window_BT = (position_ids_BT == 0).cumsum(dim=1)
    length = window_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=window_BT.device).tril()
    mask_B1TT = (window_BT[:, None, :, None] == window_BT[:, None, None, :]) & causal_TT
    return {"position_ids": position_ids_BT, "attention_mask": mask_B1TT}


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
        self._legal = None if grammar is None else LegalTargets(grammar)
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
        if self._legal is not None:
            which_BT = self._legal(batch["input_ids"], batch["labels"], batch.get("position_ids"))
            sets = self._legal.sets, which_BT[batch["labels"] != IGNORE]
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
        optimizer = torch.optim.AdamW(groups, self.settings.learning_rate, self.settings.betas)
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
