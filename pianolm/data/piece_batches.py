"""Batches that are drawn from the pieces of a cell store, made while a network trains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pianolm.data.cell_store import CellStore

Batch = dict[str, Tensor]
Music = TypeVar("Music")
_PIECES_IN_MEMORY = 4096


class PieceBatches(Dataset[Batch], Generic[Music]):
    """Batches, each a function of (seed, number of the batch).

    A piece is drawn with a probability proportional to its length. With `in_order`, batch k has the next pieces in
    order, which are the same at every validation.

    Args:
        store: The cell store.
        pieces: Indices of its pieces.
        size: Pieces of a batch.
        seed: Seed of everything that is drawn.
        length: Number of batches.
        in_order: Whether pieces come in order.
    """

    length_of_piece: str
    """Column of the store's pieces that is their length: beats, notes."""

    def __init__(
        self,
        store: CellStore,
        pieces: list[int],
        size: int,
        seed: int,
        length: int,
        in_order: bool = False,
    ) -> None:
        self._store, self._pieces, self._size = store, pieces, size
        self._seed, self._length, self._in_order = seed, length, in_order
        lengths = np.array([getattr(store.pieces[i], self.length_of_piece) for i in pieces], np.float64)
        self._share = lengths / lengths.sum()
        self._read = lru_cache(_PIECES_IN_MEMORY)(lambda index: self.read(store, index))

    def __reduce__(self) -> tuple[Any, ...]:
        # a cache cannot be pickled, and a loader's process fills its own
        arguments = (self._store, self._pieces, self._size, self._seed, self._length, self._in_order)
        return type(self), arguments

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, k: int) -> Batch:
        if not 0 <= k < self._length:
            raise IndexError(k)
        rng = np.random.Generator(
            np.random.Philox(key=np.array([self._seed, 2 * k + self._in_order], np.uint64))
        )
        if self._in_order:
            chosen = self._pieces[k * self._size : (k + 1) * self._size]
        else:
            chosen = rng.choice(self._pieces, self._size, p=self._share).tolist()
        return self.make([self._read(i) for i in chosen], rng, self._in_order)

    @staticmethod
    @abstractmethod
    def read(store: CellStore, index: int) -> Music:
        """A piece of the store as it is kept in memory."""

    @abstractmethod
    def make(self, music: Sequence[Music], rng: np.random.Generator, in_order: bool) -> Batch:
        """The batch of some pieces."""
