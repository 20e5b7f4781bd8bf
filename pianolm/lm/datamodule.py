"""The LightningDataModule of the language model.

A batch is a dict:
    input_ids: int64 [B, T]. PAD stands only at the end of a row or of a window of a packed row, so causal attention
        needs no mask for it.
    labels: int64 [B, T], already shifted: `labels[b, t]` is the token after `input_ids[b, t]`. −100 where no loss is
        taken: at PAD, at velocity tokens of flat pieces, at controls and what a fill sequence gives
        (`pianolm.lm.window_rewriter`), and at validation targets that count in another window.
    performance: bool [B, T], whether a target counts for bits per note.
    n_targets, n_tokens, n_inputs: numbers of the *global* batch, over all processes and micro-batches: labels that are
        not −100, inputs that are not PAD, inputs with PAD. In training batches only.
    position_ids: int64 [B, T], only if a row holds several windows: positions that start at 0 in every window.
        Attention must not reach from one window into another.

Shapes: R rows of a global batch, B rows of a micro-batch, T inputs of a row (the context).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pianolm.data.step_sampler import StepSampler, batch_loader
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.lm.batch_plan import BatchPlan, plan_batch
from pianolm.lm.control_windows import ControlWindows
from pianolm.lm.fill_windows import FillWindows
from pianolm.lm.llama import SHARES
from pianolm.lm.loss import IGNORE
from pianolm.lm.scorer import unigram_cross_entropy
from pianolm.lm.shares import check_shares
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.window_reader import Batch, WindowReader
from pianolm.lm.window_rewriter import DRAWN, Rewriter, RewriterMix
from pianolm.lm.windows import Rows
from pianolm.tokenizer.tokenizer import PianoTokenizer

FALLBACK_ROWS = 64
"""Training rows used for validation if there are no validation pieces and `val_tokens` is null."""
_TRANSPOSITION = 1
"""Distinguishes the random numbers of transpositions from others of the same seed."""
_REWRITING = 2
"""The same for those that windows are rewritten by."""


class TrainingOrder:
    """The endless sequence of training rows, epoch after epoch, cut into global batches.

    Args:
        index: Makes the rows of an epoch.
        seed: Seed of window borders and order.
        rows: R of one global batch.
    """

    def __init__(self, index: WindowIndex, seed: int, rows: int) -> None:
        assert len(index), "there are pieces to train on"
        self.index, self.seed, self.rows = index, seed, rows
        self._ends: list[int] = []  # of epochs, in rows
        self._cache: dict[int, Rows] = {}

    def global_batch(self, k: int) -> Rows:
        """The rows [R] of optimizer step k: a function of (seed, k), whatever was read before."""
        first, stop = k * self.rows, (k + 1) * self.rows
        while not self._ends or self._ends[-1] < stop:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends))))
        parts = []
        while first < stop:
            epoch = bisect_right(self._ends, first)
            begin = self._ends[epoch - 1] if epoch else 0
            end = min(stop, self._ends[epoch])
            parts.append(self._epoch(epoch).take(slice(first - begin, end - begin)))
            first = end
        return Rows.concatenate(parts)

    def _epoch(self, epoch: int) -> Rows:
        if epoch not in self._cache:
            while len(self._cache) > 1:  # a batch may span two epochs, so two are kept
                del self._cache[min(self._cache)]
            self._cache[epoch] = self.index.training(self.seed, epoch)
        return self._cache[epoch]


class TrainBatches(Dataset[Batch]):
    """Micro-batches of one process by their number, counted over all optimizer steps.

    Args:
        reader: Reads rows.
        order: Gives the rows of each global batch.
        plan: How a global batch is divided.
        rank: The process.
        length: Micro-batches of the whole training run.
        transpose: Largest transposition in semitones.
    """

    def __init__(
        self,
        reader: WindowReader,
        order: TrainingOrder,
        plan: BatchPlan,
        rank: int,
        length: int,
        transpose: int = 0,
    ) -> None:
        self._reader, self._order, self._plan, self._rank = reader, order, plan, rank
        self._length, self._transpose = length, transpose
        self._step, self._rows, self._totals = -1, None, {}  # type: tuple[int, Rows | None, Batch]
        self._drawn_R = np.zeros(plan.global_rows)
        self._drawn_WD: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Batch:
        step, micro = divmod(number, self._plan.accumulate)
        if step != self._step or self._rows is None:
            self._rows = self._order.global_batch(step)
            generator = np.random.default_rng([self._order.seed, step, _TRANSPOSITION])
            self._drawn_R = generator.random(len(self._rows))
            if self._reader.rewriter is not None:
                generator = np.random.default_rng([self._order.seed, step, _REWRITING])
                self._drawn_WD = generator.random((len(self._rows.windows), DRAWN))
            self._totals = self._count(self._rows)
            self._step = step
        part = self._plan.part(micro, self._rank)
        first = self._rows.first
        drawn_WD = None if self._drawn_WD is None else self._drawn_WD[first[part.start] : first[part.stop]]
        batch = self._reader.batch(
            self._rows.take(part), self._plan.rows, self._transpose, self._drawn_R[part], drawn_WD
        )
        return {**batch, **self._totals}

    def _count(self, rows: Rows) -> Batch:
        windows, targets, inputs = rows.windows, 0, 0
        if self._drawn_WD is not None:  # on all processes, since totals are of the global batch
            found = [
                self._reader.rewritten(windows, at, self._reader.tokens(windows, at), drawn)
                for at, drawn in enumerate(self._drawn_WD)
            ]
            targets = sum(int((labels != IGNORE).sum()) for _, labels in filter(None, found))
            inputs = sum(ids.size for ids, _ in filter(None, found))
            windows = windows.take(np.flatnonzero([one is None for one in found]))
        return {
            "n_targets": self._reader.n_targets(windows) + targets,
            "n_tokens": int(windows.inputs.sum()) + inputs,
            "n_inputs": len(rows) * self._reader.context,
        }


class EvaluationBatches(Dataset[Batch]):
    """The rows that one process evaluates.

    All processes have equally many batches of equal shape, since they reduce their sums together.
    """

    def __init__(self, reader: WindowReader, rows: Rows, plan: BatchPlan, rank: int) -> None:
        self._reader, self._plan, self._rows = reader, plan, rows
        self._own = np.arange(rank, len(rows), plan.processes)

    def __len__(self) -> int:
        return -(-len(self._rows) // (self._plan.rows * self._plan.processes))

    def __getitem__(self, number: int) -> Batch:
        rows = self._plan.rows
        return self._reader.batch(self._rows.take(self._own[number * rows : (number + 1) * rows]), rows)


class LMDataModule(L.LightningDataModule):
    """Batches from a token store. Training batch k is a function of (seed, k), so that resumed runs continue exactly.

    `setup` opens the store and cuts training pieces into windows; call it before using `store`, `unigram_entropy` or
    the rows outside of a Trainer.

    Args:
        store: Directory of the token store.
        loader: `context`, `batch_tokens` (global), `micro_batch_tokens` (None: no limit), `val_tokens` (None: all),
            `transpose` (semitones), `source_weights`, `fill_share`, `control_share`.
        max_steps: Optimizer steps of training.
        seed: Seed of window borders, order and transpositions.
        processes: Processes that share a batch.
        workers: Subprocesses that make batches; 0 makes them in the main process.
        accumulate: Micro-batches of an optimizer step; None: as few as `micro_batch_tokens` allows.

    Attributes:
        plan: How a global batch is divided.
        store: The token store, after `setup`.

    Raises:
        UserError: A batch cannot be divided evenly.
    """

    store: TokenStore

    def __init__(
        self,
        store: Path,
        loader: Mapping[str, Any],
        max_steps: int,
        seed: int,
        processes: int = 1,
        workers: int = 0,
        accumulate: int | None = None,
    ) -> None:
        super().__init__()
        self.plan = plan_batch(loader, processes, accumulate)
        self._directory, self._loader, self._seed = store, loader, seed
        self._max_steps, self._workers = max_steps, workers
        self._order: TrainingOrder | None = None

    def setup(self, stage: str | None = None) -> None:
        """Opens the store, and for `stage="fit"` indexes the training windows; a second call does nothing.

        Raises:
            UserError: The directory is not a token store, there are no training pieces, or a source weight is invalid.
        """
        if "store" not in vars(self):
            self.store = TokenStore.open(self._directory)
            self._reader = WindowReader(self.store, self._loader["context"], self._rewriter())
        if stage not in ("fit", None) or self._order is not None:
            return
        index = self._index("train")
        if not len(index):
            raise UserError(
                f"{self._directory}: none of {len(self.store.pieces)} pieces is for training; give more files, or "
                "smaller data.validation_fraction and data.test_fraction"
            )
        self._order = TrainingOrder(index, self._seed, self.plan.global_rows)

    def _rewriter(self) -> RewriterMix | None:
        """What rewrites training windows, if `fill_share` or `control_share` asks for it."""
        fill, control = (float(self._loader[name]) for name in SHARES)
        if not fill + control:
            return None
        tokenizer = PianoTokenizer.from_pretrained(self.store.tokenizer_dir)
        check_shares(self._loader, tokenizer.settings)
        shares: list[tuple[Rewriter, float]] = []
        if fill:
            shares.append((FillWindows(tokenizer.grammar), fill))
        if control:
            shares.append((ControlWindows(tokenizer), control))
        return RewriterMix(tuple(shares))

    def _pieces(self, split: str) -> list[int]:
        """Indices of the pieces of a split, without sources of weight 0."""
        weights = self._loader["source_weights"]
        return [piece for piece in self.store.split(split) if weights.get(self.store.pieces[piece].source, 1)]

    def _index(self, split: str) -> WindowIndex:
        weights = self._loader["source_weights"] if split == "train" else None
        pieces = self.store.split(split) if split == "train" else self._pieces(split)
        return WindowIndex(self.store, pieces, self._reader.context, weights)

    @cached_property
    def validation_rows(self) -> Rows:
        """Rows with every validation target once, or `val_tokens` of them in evenly spaced rows.

        Sources of weight 0 are left out, so that a model is judged on the kind of music that it learns.
        If there are no validation pieces, training windows are used, and a warning says so.
        """
        val_tokens = self._loader["val_tokens"]
        count = None if val_tokens is None else max(1, int(val_tokens) // self._reader.context)
        index = self._index("validation")
        if not len(index):
            rank_zero_info(
                "warning: there are no validation pieces, so val/ metrics are those of training windows and do not "
                "show how well the model predicts new music; give more files or a larger data.validation_fraction"
            )
            index, count = self._index("train"), count or FALLBACK_ROWS
        rows = index.validation()
        return rows if count is None else rows.evenly_spaced(count)

    @cached_property
    def test_rows(self) -> Rows:
        """Rows with every test target once.

        Raises:
            UserError: There are no test pieces.
        """
        index = self._index("test")
        if not len(index):
            raise UserError(
                f"{self._directory}: none of {len(self.store.pieces)} pieces is for testing; set a larger "
                "data.test_fraction"
            )
        return index.validation()

    def unigram_entropy(self) -> float:
        """Nats per validation target under the frequencies of training targets, with add-one smoothing."""
        train = self._reader.piece_label_counts(self._pieces("train"))
        return unigram_cross_entropy(train, self._reader.label_counts(self.validation_rows.windows))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches from the trainer's current step to the last."""
        assert self._order is not None, "made by setup"
        self._check_trainer()
        length = self._max_steps * self.plan.accumulate
        transpose = self._loader["transpose"]
        dataset = TrainBatches(self._reader, self._order, self.plan, self._rank, length, transpose)
        first = 0 if self.trainer is None else self.trainer.global_step * self.plan.accumulate
        return self._dataloader(dataset, StepSampler(first, length))

    def val_dataloader(self) -> DataLoader[Batch]:
        """This process's share of the validation rows."""
        return self._evaluation(self.validation_rows)

    def test_dataloader(self) -> DataLoader[Batch]:
        """This process's share of the test rows."""
        return self._evaluation(self.test_rows)

    def _evaluation(self, rows: Rows) -> DataLoader[Batch]:
        dataset = EvaluationBatches(self._reader, rows, self.plan, self._rank)
        return self._dataloader(dataset, StepSampler(0, len(dataset)))

    def _dataloader(self, dataset: Dataset[Batch], sampler: StepSampler) -> DataLoader[Batch]:
        return batch_loader(
            dataset,
            sampler,
            self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _check_trainer(self) -> None:
        if self.trainer is not None:
            assert self.trainer.world_size == self.plan.processes, "the plan has the trainer's processes"
            assert self.trainer.accumulate_grad_batches == self.plan.accumulate, (
                "the trainer has the plan's micro-batches"
            )

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank
