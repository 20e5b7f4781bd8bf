"""Batches of tokens for the language models.

Shapes: R rows of a global batch, B rows of a micro-batch, T inputs of a row (the context), W windows, V ids.

A batch is a dict: `input_ids` int64 [B, T]; `labels` int64 [B, T], already shifted: `labels[b, t]` is the
token that follows `input_ids[b, t]`, or −100 where no loss is taken (after the end of the piece, at velocity
tokens of flat pieces, and at validation targets that another window scores); `performance` bool [B, T], whether
a target counts for bits per note; and three whole numbers of the *global* batch, all processes and
micro-batches together: `n_targets` labels that are not −100, `n_tokens` inputs that are not PAD, `n_slots`
inputs in all. PAD stands at the end of rows only, so that causal attention needs no mask.

Where a row holds several windows, `position_ids` int64 [B, T] is there too: it begins at 0 in every window, and
attention must not reach from one window into another.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from pianolm.data.step_sampler import StepSampler
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.lm.scorer import unigram_cross_entropy
from pianolm.lm.windows import KEYBOARD, Batch, Rows, WindowIndex, WindowReader

FALLBACK_ROWS = 64
"""Training rows that stand in for validation ones where there are none and `val_tokens` sets no number."""

_TRANSPOSING = 1
"""Tells the stream of random numbers that transposes from others of the same seed."""


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is divided.

    Attributes:
        global_rows: R of the global batch.
        rows: B of a micro-batch on one process.
        accumulate: Micro-batches an optimizer step on each process.
        processes: Among which it is divided.
    """

    global_rows: int
    rows: int
    accumulate: int
    processes: int

    def part(self, micro: int, rank: int) -> slice:
        """Rows of the global batch that process `rank` takes in micro-batch number `micro` of the step."""
        first = (micro * self.processes + rank) * self.rows
        return slice(first, first + self.rows)


def plan_batch(settings: Mapping[str, Any], processes: int) -> BatchPlan:
    """Divides `batch_tokens` among processes and into micro-batches of at most `micro_batch_tokens` each.

    Raises:
        UserError: A number is not positive, or the windows cannot be shared evenly.
    """
    context, batch, micro = (settings[name] for name in ("context", "batch_tokens", "micro_batch_tokens"))
    sizes = {"context": context, "batch_tokens": batch}
    if micro is not None:
        sizes["micro_batch_tokens"] = micro
    wrong = [
        f"loader.{name}={value!r}" for name, value in sizes.items() if not isinstance(value, int) or value < 1
    ]
    if wrong:
        raise UserError(f"{', '.join(wrong)} found, expected whole numbers of at least 1")
    windows = max(1, batch // context)
    if windows % processes:
        step = context * processes
        below, above = windows // processes * step, (windows // processes + 1) * step
        raise UserError(
            f"loader.batch_tokens={batch} makes {windows} windows of loader.context={context}, which "
            f"{processes} "
            f"processes cannot share evenly; expected a multiple of {step}, such as "
            f"{above if not below else f'{below} or {above}'}"
        )
    share = windows // processes
    most = share if micro is None else max(1, micro // context)
    rows = next(rows for rows in range(min(most, share), 0, -1) if share % rows == 0)
    return BatchPlan(windows, rows, share // rows, processes)


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


class _TrainBatches(Dataset[Batch]):
    """Micro-batches of one process by their number, counted over all optimizer steps."""

    def __init__(
        self, reader: WindowReader, order: TrainingOrder, plan: BatchPlan, rank: int, transpose: int = 0
    ) -> None:
        self._reader, self._order, self._plan, self._rank = reader, order, plan, rank
        self._transpose = transpose
        self._step, self._rows, self._totals = -1, None, {}  # type: tuple[int, Rows | None, Batch]
        self._drawn_R = np.zeros(plan.global_rows)

    def __getitem__(self, number: int) -> Batch:
        step, micro = divmod(number, self._plan.accumulate)
        if step != self._step or self._rows is None:
            self._rows = self._order.global_batch(step)
            self._drawn_R = np.random.default_rng([self._order.seed, step, _TRANSPOSING]).random(
                len(self._rows)
            )
            self._totals = self._count(self._rows)
            self._step = step
        part = self._plan.part(micro, self._rank)
        batch = self._reader.batch(
            self._rows.take(part), self._plan.rows, self._transpose, self._drawn_R[part]
        )
        return {**batch, **self._totals}

    def _count(self, rows: Rows) -> Batch:
        return {
            "n_targets": self._reader.n_targets(rows.windows),
            "n_tokens": int(rows.windows.inputs.sum()),
            "n_slots": len(rows) * self._reader.context,
        }


class _ValidationBatches(Dataset[Batch]):
    """The share of one process. All processes have equally many batches of equal shape: they work in step."""

    def __init__(self, reader: WindowReader, rows: Rows, plan: BatchPlan, rank: int) -> None:
        self._reader, self._plan, self._rows = reader, plan, rows
        self._mine = np.arange(rank, len(rows), plan.processes)

    def __len__(self) -> int:
        return -(-len(self._rows) // (self._plan.rows * self._plan.processes))

    def __getitem__(self, number: int) -> Batch:
        rows = self._plan.rows
        return self._reader.batch(self._rows.take(self._mine[number * rows : (number + 1) * rows]), rows)


class LMDataModule(L.LightningDataModule):
    """Training and validation windows of a token store.

    Args:
        store: Directory of the token store.
        settings: `context`, `batch_tokens` (global), `micro_batch_tokens` (None: as much as a process has),
            `max_steps`, `val_tokens` (None: all), `transpose` (semitones), `source_weights`.
        seed: Of the order.
        processes: Among which each batch is divided.
        workers: Processes that make batches; 0 makes them in this one.

    Attributes:
        plan: How a batch is divided.

    Raises:
        UserError: The store is none, has nothing to train on, or a setting does not fit.
    """

    def __init__(
        self, store: Path, settings: Mapping[str, Any], seed: int, processes: int = 1, workers: int = 0
    ) -> None:
        super().__init__()
        self.plan = plan_batch(settings, processes)
        self.store = TokenStore.open(store)
        self._reader = WindowReader(self.store, settings["context"])
        self._max_steps, self._val_tokens = int(settings["max_steps"]), settings["val_tokens"]
        self._workers = workers
        self._train_pieces = self.store.split("train")
        self._transpose = settings["transpose"]
        if not isinstance(self._transpose, int) or not 0 <= self._transpose <= KEYBOARD[1] - KEYBOARD[0]:
            raise UserError(
                f"loader.transpose={self._transpose!r} found, expected a whole number of semitones from 0 to "
                f"{KEYBOARD[1] - KEYBOARD[0]}"
            )
        weights = settings["source_weights"]
        index = WindowIndex(self.store, self._train_pieces, self._reader.context, weights)
        if not len(index):
            raise UserError(
                f"{store}: no piece to train on among {len(self.store.pieces)}; give more files or smaller "
                "data.validation_fraction and data.test_fraction"
            )
        self._order = TrainingOrder(index, seed, self.plan.global_rows)

    @cached_property
    def validation_rows(self) -> Rows:
        """What validation scores: every target of its pieces once, or rows of `val_tokens` evenly spaced.

        Where no piece is for validation, training windows stand in, and that is said.
        """
        context = self._reader.context
        index = WindowIndex(self.store, self.store.split("validation"), context)
        wanted = None if self._val_tokens is None else max(1, int(self._val_tokens) // context)
        if not len(index):
            rank_zero_info(
                "warning: no piece is for validation, so val/ metrics are taken on training windows and do "
                "not show "
                "how well the model does on new music; give more files or a larger data.validation_fraction"
            )
            index = WindowIndex(self.store, self._train_pieces, context)
            wanted = wanted or FALLBACK_ROWS
        rows = index.validation()
        return rows if wanted is None else rows.evenly_spaced(wanted)

    def unigram_entropy(self) -> float:
        """Nats a validation target under the frequencies of training targets, one added to each count."""
        train = self._reader.piece_label_counts(self._train_pieces)
        return unigram_cross_entropy(train, self._reader.label_counts(self.validation_rows.windows))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches from where the trainer stands to the last step."""
        self._check_trainer()
        dataset = _TrainBatches(self._reader, self._order, self.plan, self._rank, self._transpose)
        first = self._step * self.plan.accumulate
        return self._loader(dataset, StepSampler(first, self._max_steps * self.plan.accumulate))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The share of this process of the validation windows."""
        dataset = _ValidationBatches(self._reader, self.validation_rows, self.plan, self._rank)
        return self._loader(dataset, StepSampler(0, len(dataset)))

    def _loader(self, dataset: Dataset[Batch], sampler: StepSampler) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=None,  # an item is a batch
            sampler=sampler,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _check_trainer(self) -> None:
        if self.trainer is not None:
            assert self.trainer.world_size == self.plan.processes, (
                "planned for as many processes as there are"
            )
            assert self.trainer.accumulate_grad_batches == self.plan.accumulate, (
                "planned for this accumulation"
            )

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _step(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_step
