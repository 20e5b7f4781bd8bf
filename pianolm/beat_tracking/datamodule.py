"""The LightningDataModule of the beat tracker: excerpts of performances, made while it trains.

Shapes: B excerpts of a batch, T frames, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from pianolm.beat_tracking.excerpts import Excerpt, excerpt
from pianolm.beat_tracking.expression import perform
from pianolm.data.beat_notes import BeatNotes
from pianolm.data.cell_store import CellStore
from pianolm.data.piece_batches import Batch, PieceBatches
from pianolm.data.step_sampler import StepSampler, batch_loader
from pianolm.errors import UserError

EXCERPT_FRAMES = 2000
"""T: 40 seconds."""
_TRANSPOSE = 6
_VALIDATION_PIECES = 160
_FEWEST_NOTES = 16
_VALIDATION_BATCH = 8


class Excerpts(PieceBatches[BeatNotes]):
    """Batches of excerpts: pieces are performed and cut; in order, they are not transposed."""

    length_of_piece = "beats"

    @staticmethod
    def read(store: CellStore, index: int) -> BeatNotes:
        """A piece in beats."""
        return BeatNotes.of_store(store, index)

    def make(self, music: Sequence[BeatNotes], rng: np.random.Generator, in_order: bool) -> Batch:
        """An excerpt of a performance of each piece."""
        transpose = 0 if in_order else _TRANSPOSE
        made = [excerpt(perform(one, rng, transpose), EXCERPT_FRAMES, rng) for one in music]
        return {
            name: torch.from_numpy(np.stack(arrays))
            for name, *arrays in zip(Excerpt._fields, *made, strict=True)
        }


class BeatDataModule(L.LightningDataModule):
    """Excerpts from the cell store of stage prepare.

    Args:
        store_directory: The cell store.
        options: The options `beats`.
        seed: Seed of the excerpts and their performance.
        loader_workers: Subprocesses that make batches; 0 makes them in the main process.
    """

    def __init__(
        self, store_directory: Path, options: Mapping[str, Any], seed: int, loader_workers: int = 0
    ) -> None:
        super().__init__()
        self._store_directory, self._options, self._seed = store_directory, options, seed
        self._loader_workers = loader_workers
        self._store: CellStore | None = None

    def setup(self, stage: str | None = None) -> None:
        """Maps the store.

        Raises:
            UserError: No training piece has notes enough.
        """
        self._store = CellStore.open(self._store_directory)
        if not self._usable("train"):
            raise UserError(
                f"{self._store_directory}: none of {len(self._store.split('train'))} training pieces has "
                f"{_FEWEST_NOTES} notes on annotated beats; prepare other data with data.*"
            )

    def _usable(self, split: str) -> list[int]:
        """Pieces of a split with notes enough and beats that were not estimated."""
        assert self._store is not None, "Lightning calls setup first"
        rows = self._store.pieces
        return [
            i
            for i in self._store.split(split)
            if rows[i].notes >= _FEWEST_NOTES and rows[i].beat_confidence is None
        ]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from the trainer's current step to the last."""
        trainer = self.trainer
        assert trainer is not None, "Lightning's trainer calls this"
        assert self._store is not None, "Lightning calls setup first"
        stop = self._options["max_steps"] * trainer.accumulate_grad_batches
        first = trainer.global_step * trainer.accumulate_grad_batches
        batches = Excerpts(
            self._store, self._usable("train"), self._options["batch_excerpts"], self._seed, stop
        )
        return self._dataloader(batches, StepSampler(first, stop))

    def val_dataloader(self) -> DataLoader[Batch]:
        """One excerpt of each validation piece, or of 160 evenly spaced ones."""
        assert self._store is not None, "Lightning calls setup first"
        pieces = self._usable("validation")
        if not pieces:
            rank_zero_info("beats: no validation pieces; validating on training pieces")
            pieces = self._usable("train")
        count = min(_VALIDATION_PIECES, len(pieces))
        chosen = [pieces[i * len(pieces) // count] for i in range(count)]
        batches = -(-count // _VALIDATION_BATCH)
        return self._dataloader(
            Excerpts(self._store, chosen, _VALIDATION_BATCH, self._seed, batches, in_order=True)
        )

    def _dataloader(self, batches: Dataset[Batch], steps: StepSampler | None = None) -> DataLoader[Batch]:
        return batch_loader(batches, steps, self._loader_workers)
