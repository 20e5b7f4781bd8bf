"""The music that all models of the comparison learn from, and batches of its tokens.

Shapes: T tokens of a piece, B rows of a batch, C tokens of a window.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from representations import Tokens, digest, performance
from torch.utils.data import IterableDataset

from pianolm.artifacts import read_record
from pianolm.data.cell_store import CellStore
from pianolm.lm.loss import IGNORE

DATA_SEED = 0
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Pieces of a cell store, chosen once for all jobs.

    Attributes:
        store: The cell store.
        train: Indices of the training pieces.
        validation: Indices of the pieces that are scored after training.
        curve: Indices of the pieces that are scored during training.
        cache: Directory in which encoded pieces are kept.
    """

    store: CellStore
    train: list[int]
    validation: list[int]
    curve: list[int]
    cache: Path

    @classmethod
    def choose(
        cls, directory: Path, train_notes: int, validation_notes: int, curve_notes: int, cache: Path
    ) -> Corpus:
        """Chooses performances until each part has its number of notes.

        `prepare` puts a work into one split. A store made before it did so ends the program if a work is trained on
        and scored.
        """
        store = CellStore.open(directory)
        sizes = ("train", train_notes), ("validation", validation_notes), ("validation", curve_notes)
        corpus = cls(store, *(choose_pieces(store, split, notes) for split, notes in sizes), cache)
        if both := corpus.works(corpus.train) & corpus.works(corpus.validation + corpus.curve):
            sys.exit(
                f"{directory}: in training and validation: {', '.join(sorted(both))}; prepare the data again"
            )
        return corpus

    @property
    def fingerprint(self) -> str:
        """Of the prepared data."""
        record = read_record(self.store.directory) or {"fingerprint": str(self.store.directory)}
        return str(record["fingerprint"])

    def works(self, pieces: list[int]) -> set[str]:
        return {self.store.pieces[index].composition for index in pieces}

    def notes(self, pieces: list[int]) -> int:
        return sum(self.store.pieces[index].notes for index in pieces)

    def encoded(self, tokens: Tokens, pieces: list[int]) -> list[Ids]:
        """Ids of some pieces, encoded once and cached, because MidiTok is slow."""
        path = self.cache / f"{digest([tokens.fingerprint, self.fingerprint, pieces])}.npz"
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                encoded = [tokens.encode(performance(self.store, index)) for index in pieces]
                partial = path.with_suffix(".partial.npz")
                ends = np.cumsum([ids.size for ids in encoded])[:-1]
                np.savez(partial, ids=np.concatenate(encoded).astype(np.uint16), ends=ends)
                partial.replace(path)
            with np.load(path) as cached:
                return np.split(cached["ids"].astype(np.int64), cached["ends"])


def choose_pieces(store: CellStore, split: str, notes: int) -> list[int]:
    """Performances without flat velocities, in a random but fixed order, until they have `notes` notes."""
    usable = [index for index in store.split(split) if store.pieces[index].kind == "performance"]
    usable = [index for index in usable if not store.flat(index)]
    if not usable:
        sys.exit(f"{store.directory}: no usable performance in the {split} split; take more data")
    drawn = np.random.default_rng(DATA_SEED).permutation(usable)
    total = np.cumsum([store.pieces[index].notes for index in drawn])
    return drawn[: int(np.searchsorted(total, notes)) + 1].tolist()


def batches(
    pieces: list[Ids], tokens: Tokens, window: int, batch: int, seed: int
) -> Iterator[tuple[Ids, Ids]]:
    """Endless inputs and labels [B, C]: each epoch joins the pieces in a new order and cuts them into rows.

    The label of a given token is `IGNORE`.
    """
    for epoch in range(sys.maxsize):
        rng = np.random.default_rng([seed, epoch])
        stream = np.concatenate([pieces[index] for index in rng.permutation(len(pieces))])
        labels = np.where(tokens.given(stream), IGNORE, stream)
        rows = (stream.size - 1) // window
        assert rows, "the music fills a window"
        first = int(rng.integers((stream.size - 1) % window + 1))
        starts_B = first + rng.permutation(rows) * window
        for at in range(0, rows, batch):
            position_BC = starts_B[at : at + batch, None] + np.arange(window)
            yield stream[position_BC], labels[position_BC + 1]


class Batches(IterableDataset[dict[str, Any]]):
    """`batches` as the LightningModule of the language model expects them; see `pianolm.lm.datamodule`."""

    def __init__(self, pieces: list[Ids], tokens: Tokens, window: int, batch: int, seed: int) -> None:
        self._arguments = pieces, tokens, window, batch, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for inputs_BC, labels_BC in batches(*self._arguments):
            input_ids, labels = torch.from_numpy(inputs_BC), torch.from_numpy(labels_BC)
            yield {
                "input_ids": input_ids,
                "labels": labels,
                "performance": torch.ones_like(labels, dtype=bool),
                "n_targets": int((labels != IGNORE).sum()),
                **dict.fromkeys(("n_tokens", "n_inputs"), labels.numel()),
            }
