"""Excerpts of performances with the targets of the network.

Shapes: N notes, B beats, D downbeats, T frames of an excerpt, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beat_features import FRAMES_PER_SEC, LEAD_SEC, TAIL_SEC, beat_features
from pianolm.music.notes import Notes

_TARGET_FRAMES = 2
"""Frames from a beat at which its target has fallen to 0."""
_MARGIN_SEC = 0.3
"""Time before the first and after the last onset in which beats are learned; nothing tells those further away."""


@dataclass(frozen=True)
class Performance:
    """Notes with the beats they are played on.

    Attributes:
        notes: [N] note array, sorted by onset.
        beats_sec: [B] beat times.
        downbeats_sec: [D] downbeats; None if unknown.
    """

    notes: Notes
    beats_sec: NDArray[np.float64]
    downbeats_sec: NDArray[np.float64] | None


class Excerpt(NamedTuple):
    """An excerpt of a performance.

    Attributes:
        features: [T, F] float32.
        target: [T, 2] float32: 1 at a beat and at a downbeat, 0.5 a frame beside it.
        weight: [T, 2] float32: 1 where the target is known, else 0.
    """

    features: NDArray[np.float32]
    target: NDArray[np.float32]
    weight: NDArray[np.float32]


def excerpt(performance: Performance, n_frames: int, rng: np.random.Generator) -> Excerpt:
    """A random excerpt of `n_frames` frames; shorter music is followed by silence, which is not learned."""
    onset_sec = performance.notes["onset_sec"]
    first_sec, last_sec = float(onset_sec[0]), float(onset_sec[-1])
    seconds = n_frames / FRAMES_PER_SEC
    latest_sec = max(last_sec + TAIL_SEC - seconds, first_sec - LEAD_SEC)
    start_sec = rng.uniform(first_sec - LEAD_SEC, latest_sec)
    sounding = (onset_sec > start_sec - 1) & (onset_sec < start_sec + seconds + 1)
    features = beat_features(performance.notes[sounding], start_sec, n_frames)
    frame_sec = start_sec + np.arange(n_frames) / FRAMES_PER_SEC
    is_music = (frame_sec > first_sec - _MARGIN_SEC) & (frame_sec < last_sec + _MARGIN_SEC)
    weight = np.repeat(is_music[:, None], 2, axis=1).astype(np.float32)
    downbeats_sec = performance.downbeats_sec
    if downbeats_sec is None:
        weight[:, 1] = 0
        downbeats_sec = np.zeros(0)
    target = np.stack(
        [
            _peaks((times - start_sec) * FRAMES_PER_SEC, n_frames)
            for times in (performance.beats_sec, downbeats_sec)
        ],
        axis=1,
    )
    return Excerpt(features, target, weight)


def _peaks(frame: NDArray[np.float64], n_frames: int) -> NDArray[np.float32]:
    """[T] triangles of height 1 around places between frames."""
    values = np.zeros(n_frames, np.float32)
    nearest = np.rint(frame).astype(np.int64)
    for step in range(-_TARGET_FRAMES, _TARGET_FRAMES + 1):
        at = nearest + step
        height = np.maximum(1 - np.abs(at - frame) / _TARGET_FRAMES, 0)
        inside = (at >= 0) & (at < n_frames)
        np.maximum.at(values, at[inside], height[inside].astype(np.float32))
    return values
