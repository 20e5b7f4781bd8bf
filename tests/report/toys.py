"""Random cells and small codebooks for the tests of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from pianolm.music.cells import FRAMES, Cells, frames_to_cells, resolve_collisions
from pianolm.tokenizer.codebook import Codebook, Patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.vocabulary import Vocabulary

SMALL = Vocabulary(l1=24, l2=12, l3=8)
NOTHING = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


class OneCode:
    """A velocity codec that gives every cell the same code."""

    codebook_size, fingerprint = 4, "one"

    def encode(self, cells: Cells) -> np.ndarray:
        return np.full(len(cells), 3)


def random_cells(seed: int, notes: int = 60, beats: int = 16, pitches: int = 7, longest: int = 100) -> Cells:
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, beats * FRAMES - 1, notes)
    frames, _ = resolve_collisions(
        onset,
        onset + rng.integers(1, longest, notes),
        rng.integers(55, 55 + pitches, notes).astype(np.uint8),
        rng.integers(1, 128, notes).astype(np.uint8),
        beats * FRAMES,
    )
    return frames_to_cells(frames, beats)


def beat_times(beats: int = 16) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.random.default_rng(1).uniform(0.4, 0.8, beats))])


def untrained_codebook() -> Codebook:
    return complete([NOTHING, NOTHING, NOTHING], SMALL)


def fitted_codebook() -> Codebook:
    cells = random_cells(0)
    return fit_codebook(cells.sustain, cells.onset, SMALL).codebook


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    height, width = imread(path).shape[:2]
    return width, height
