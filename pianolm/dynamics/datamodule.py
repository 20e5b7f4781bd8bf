"""The LightningDataModule of the dynamics model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from pianolm.data.cell_store import CellStore
from pianolm.data.piece_batches import Batch
from pianolm.data.step_sampler import StepSampler, batch_loader
from pianolm.dynamics.batches import Windows
from pianolm.errors import UserError

_VALIDATION_PIECES = 256
_VALIDATION_BATCH = 16
_FEWEST_NOTES = 16


class DynamicsDataModule(L.LightningDataModule):
    """Windows of performances from the cell store of stage prepare; scores and flat pieces are left out.

    Args:
        store_directory: The cell store.
        options: The options `dynamics`.
        seed: Seed of the windows.
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
            UserError: No training piece has dynamics.
        """
        self._store = CellStore.open(self._store_directory)
        if not self._usable("train"):
            raise UserError(
                f"{self._store_directory}: none of {len(self._store.split('train'))} training pieces has velocities to "
                f"learn from, expected performances of at least {_FEWEST_NOTES} notes (all are flat, or scores); "
                "prepare other data with data.*"
            )

    def _usable(self, split: str) -> list[int]:
        assert self._store is not None, "Lightning calls setup first"
        rows = self._store.pieces
        return [
            i for i in self._store.split(split) if rows[i].notes >= _FEWEST_NOTES and not self._store.flat(i)
        ]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from the trainer's current step to the last."""
        trainer = self.trainer
        assert trainer is not None, "Lightning's trainer calls this"
        assert self._store is not None, "Lightning calls setup first"
        stop = self._options["max_steps"] * trainer.accumulate_grad_batches
        first = trainer.global_step * trainer.accumulate_grad_batches
        windows = Windows(
            self._store, self._usable("train"), self._options["batch_windows"], self._seed, stop
        )
        return batch_loader(windows, StepSampler(first, stop), self._loader_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """One window of each validation piece, or of 256 evenly spaced ones."""
        assert self._store is not None, "Lightning calls setup first"
        pieces = self._usable("validation")
        if not pieces:
            rank_zero_info("dynamics: no validation pieces; validating on training pieces")
            pieces = self._usable("train")
        count = min(_VALIDATION_PIECES, len(pieces))
        chosen = [pieces[i * len(pieces) // count] for i in range(count)]
        batches = -(-count // _VALIDATION_BATCH)
        windows = Windows(self._store, chosen, _VALIDATION_BATCH, self._seed, batches, in_order=True)
        return batch_loader(windows, None, self._loader_workers)
