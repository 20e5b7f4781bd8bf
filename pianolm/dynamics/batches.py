"""Notes as batches of the dynamics model: windows of pieces, in training with some of the velocities hidden.

Shapes: B windows of a batch, N notes, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pianolm.data.beat_notes import BeatNotes
from pianolm.data.cell_store import CellStore
from pianolm.data.piece_batches import Batch, PieceBatches
from pianolm.dynamics.features import (
    BIN_WIDTH,
    UNKNOWN_VELOCITY,
    NoteFeatures,
    note_features,
)

WINDOW_NOTES = 256
_TRANSPOSE = 6
_LOUDER = 10
"""Most MIDI units by which a window is played louder or softer."""
_ALL_HIDDEN = 0.3
_TOLD = 0.5
"""Shares of the windows in which all velocities are hidden, and in which the piece's median velocity is told."""
_STRICT = 0.5
"""Share of the windows in strict time. Without them the model reads loudness from rolled chords and rubato alone, which
a score does not have; finding: experiments/dynamics."""


@dataclass(frozen=True)
class Window:
    """Notes with velocities, of which some are known to the model.

    Attributes:
        features: Of N notes.
        known: [N] velocities that the model is given, 0 where one is hidden.
        velocity: [N] velocities played.
        level: Median velocity of the piece; NaN where the model is not told.
    """

    features: NoteFeatures
    known: NDArray[np.int64]
    velocity: NDArray[np.int64]
    level: float


def collate(windows: Sequence[Window]) -> Batch:
    """The batch [B, N] of windows, padded to the longest.

    `velocity` has bins, `target` the velocities played, 0 where there is no loss: at known notes and beyond the end.
    """
    length = max(window.velocity.size for window in windows)
    batch = {
        name: torch.stack([_padded(getattr(window.features, name), length) for window in windows])
        for name in NoteFeatures._fields
    }
    bins = [np.where(w.known > 0, w.known // BIN_WIDTH, UNKNOWN_VELOCITY) for w in windows]
    batch["velocity"] = torch.stack([_padded(one, length) for one in bins])
    hidden = [np.where(w.known > 0, 0, w.velocity) for w in windows]
    batch["target"] = torch.stack([_padded(one, length) for one in hidden])
    batch["is_note"] = torch.stack([_padded(np.ones(w.velocity.size, bool), length) for w in windows])
    batch["level"] = torch.tensor([window.level for window in windows], dtype=torch.float32)
    return batch


def _padded(array: NDArray[Any], length: int) -> Tensor:
    out = np.zeros((length, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return torch.from_numpy(out)


def part(features: NoteFeatures, notes: slice) -> NoteFeatures:
    """The features of some of the notes."""
    return NoteFeatures(
        features.pitch[notes],
        features.frame[notes],
        features.bar_position[notes],
        features.bar_length[notes],
        features.onset_beat[notes],
        features.values[notes],
    )


class KnownNotes(NamedTuple):
    """Features and velocities of the notes of a piece.

    Attributes:
        features: Of N notes.
        velocity: [N].
    """

    features: NoteFeatures
    velocity: NDArray[np.int64]

    @classmethod
    def of(cls, music: BeatNotes) -> KnownNotes:
        """Reads the notes of a piece."""
        return cls(note_features(music), music.velocity)

    def window(self, first: int) -> KnownNotes:
        """The notes from `first` on that fit into a window."""
        notes = slice(first, first + WINDOW_NOTES)
        return KnownNotes(part(self.features, notes), self.velocity[notes])


@dataclass(frozen=True)
class PlayedPiece:
    """A piece as it is kept in memory.

    Attributes:
        played: Its notes as they were played.
        strict: The same notes in strict time.
    """

    played: KnownNotes
    strict: KnownNotes

    @classmethod
    def of(cls, music: BeatNotes) -> PlayedPiece:
        """Reads the notes of a piece."""
        return cls(KnownNotes.of(music), KnownNotes.of(music.in_strict_time()))

    def middle(self, is_strict: bool) -> Window:
        """The window in the middle, all hidden, the level told."""
        notes = self.strict if is_strict else self.played
        features, velocity = notes.window(max((notes.velocity.size - WINDOW_NOTES) // 2, 0))
        return Window(features, np.zeros_like(velocity), velocity, float(np.median(notes.velocity)))

    def drawn(self, rng: np.random.Generator) -> Window:
        """A window for training: transposed, louder or softer, with some of its velocities hidden."""
        notes = self.strict if rng.random() < _STRICT else self.played
        last = max(notes.velocity.size - WINDOW_NOTES, 0)
        features, played = notes.window(int(rng.integers(0, last + 1)))
        step = int(rng.integers(-_TRANSPOSE, _TRANSPOSE + 1))
        pitch = features.pitch + step
        if pitch.min() >= 0 and pitch.max() <= 127:
            features = features._replace(pitch=pitch)
        louder = int(rng.integers(-_LOUDER, _LOUDER + 1))
        velocity = np.clip(played + louder, 1, 127)
        level = float(np.clip(np.median(notes.velocity) + louder, 1, 127))
        share = 1.0 if rng.random() < _ALL_HIDDEN else math.cos(math.pi / 2 * rng.random())
        is_hidden = rng.random(velocity.size) < share
        is_hidden[rng.integers(velocity.size)] = True  # there is always something to learn
        known = np.where(is_hidden, 0, velocity)
        return Window(features, known, velocity, level if rng.random() < _TOLD else math.nan)


class Windows(PieceBatches[PlayedPiece]):
    """Batches of windows.

    In order, they are those in the middle of pieces, every second one in strict time, with all velocities hidden and
    the level told.
    """

    length_of_piece = "notes"

    @staticmethod
    def read(store: CellStore, index: int) -> PlayedPiece:
        """The features and velocities of a piece."""
        return PlayedPiece.of(BeatNotes.of_store(store, index))

    def make(self, music: Sequence[PlayedPiece], rng: np.random.Generator, in_order: bool) -> Batch:
        """A window of each piece."""
        if in_order:
            return collate([one.middle(is_strict=bool(i % 2)) for i, one in enumerate(music)])
        return collate([one.drawn(rng) for one in music])
