"""Errors of decoded velocities against played ones, in MIDI units, as sums over batches and processes.

Shapes: C cells, S segments, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.music.cells import segment_of_frame, segment_starts

CLASSES = ("1", "2", "3", "4plus")
"""Classes of cells by their number of segments."""


@dataclass
class VelocityErrors:
    """Sums over cells.

    Attributes:
        frame_error: [4] int64, |decoded − played| summed over active frames of 1/48 beat, by segment count.
        frames: [4] int64, number of these frames.
        note_error: [128] int64, number of struck notes of each absolute error.
        code_count: [K] int64, cells of each code.
    """

    frame_error: NDArray[np.int64]
    frames: NDArray[np.int64]
    note_error: NDArray[np.int64]
    code_count: NDArray[np.int64]

    @classmethod
    def empty(cls, codebook_size: int) -> VelocityErrors:
        """Sums over no cells."""
        return cls(*(np.zeros(size, np.int64) for size in (len(CLASSES), len(CLASSES), 128, codebook_size)))

    def add(
        self,
        codes: NDArray[np.integer],
        sustain: NDArray[np.uint64],
        onset: NDArray[np.uint64],
        played: NDArray[np.uint8],
        decoded: NDArray[np.uint8],
    ) -> None:
        """Adds C cells with S segments.

        Args:
            codes: [C] codes.
            sustain: [C] masks.
            onset: [C] masks.
            played: [S] played velocities of the segments.
            decoded: [S] decoded velocities of the segments.
        """
        start = segment_starts(sustain, onset)
        count = np.bitwise_count(start).astype(np.int64)
        first = np.cumsum(count) - count
        segment_CF = segment_of_frame(sustain, onset)
        cell, frame = np.nonzero(segment_CF >= 0)
        length = np.bincount(first[cell] + segment_CF[cell, frame], minlength=played.size)
        error = np.abs(played.astype(np.int64) - decoded)
        class_of = np.repeat(np.minimum(count, len(CLASSES)) - 1, count)
        self.frame_error += np.bincount(class_of, error * length, minlength=len(CLASSES)).astype(np.int64)
        self.frames += np.bincount(class_of, length, minlength=len(CLASSES)).astype(np.int64)
        struck = np.ones(played.size, bool)
        struck[first[(start & ~onset) != 0]] = False
        self.note_error += np.bincount(error[struck], minlength=128)
        self.code_count += np.bincount(codes, minlength=self.code_count.size)

    def metrics(self) -> dict[str, float]:
        """Metrics `val/…` of stage velvq; a class without cells has none."""
        metrics = {"val/velocity_mae": float(self.frame_error.sum() / max(self.frames.sum(), 1))}
        for name, error, frames in zip(CLASSES, self.frame_error, self.frames, strict=True):
            if frames:
                metrics[f"val/velocity_mae_{name}"] = float(error / frames)
        share = np.cumsum(self.note_error) / max(self.note_error.sum(), 1)
        metrics["val/note_velocity_p95"] = float(np.argmax(share >= 0.95))
        metrics["val/codes_used"] = float((self.code_count > 0).mean())
        metrics["val/code_perplexity"] = perplexity(self.code_count)
        return metrics


def perplexity(count: NDArray[np.int64]) -> float:
    """exp of the entropy of a histogram: the number of equally used codes of the same entropy."""
    p = count[count > 0] / max(count.sum(), 1)
    return float(np.exp(-(p * np.log(p)).sum()))
