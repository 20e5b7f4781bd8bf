"""Beats and downbeats from notes alone: the beat tracker, applied without torch.

`pianolm.beat_tracking` trains the network; here are the steps from notes to a grid: features, network, decoder, and
beats moved to the notes that are struck on them.

Shapes: N notes, B beats, T frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pianolm import models
from pianolm.errors import UserError
from pianolm.music.beat_decoding import (
    DEFAULT_SETTINGS,
    DecodingSettings,
    confidence,
    decode_bars,
    decode_beats,
)
from pianolm.music.beat_features import FRAMES_PER_SEC, LEAD_SEC, beat_features, frame_count
from pianolm.music.beat_network import CONFIG_FILE, BeatNetwork
from pianolm.music.beats import BeatAnnotation, merge_close
from pianolm.music.notes import Notes

_LONGEST_PAUSE_SEC = 10.0
"""Music on both sides of a longer pause is tracked apart: no tempo is remembered over it, and memory stays bounded."""
_SNAP_SEC = 0.035
_NO_BEAT_SEC = 0.5


@dataclass(frozen=True)
class BeatEstimate:
    """Beats found from notes.

    Attributes:
        beats_sec: [B] strictly ascending beat times, B ≥ 2.
        downbeat: [B] whether each beat is a downbeat.
        confidence: How sure the beats are, 0–1: see `pianolm.music.beat_decoding.confidence`; of several parts of the
            music, the mean weighted by their beats.
    """

    beats_sec: NDArray[np.float64]
    downbeat: NDArray[np.bool_]
    confidence: float

    @property
    def annotation(self) -> BeatAnnotation:
        """The beats and downbeats as if they were annotated."""
        return BeatAnnotation(self.beats_sec, self.downbeat)


def load_tracker(tracker: str | Path = models.BEATS) -> BeatNetwork:
    """The beat tracker in a directory that stage beats published, or in `pianolm/models` for its name.

    Raises:
        UserError: There is none, or its files cannot be used.
    """
    path = models.tracker_path(tracker)
    if not (path / CONFIG_FILE).is_file():
        raise UserError(
            f"data.tracker={tracker}: no {CONFIG_FILE} in {path}, expected a beat tracker; train one with stage=beats "
            "and give the artifact that it names: data.tracker=artifacts/beats/NAME"
        )
    return _loaded(path.resolve())


@lru_cache(maxsize=2)
def _loaded(directory: Path) -> BeatNetwork:
    return BeatNetwork.from_directory(directory)


def estimate_beats(
    notes: Notes, network: BeatNetwork, settings: DecodingSettings = DEFAULT_SETTINGS
) -> BeatEstimate:
    """Finds the beats and downbeats of notes.

    Args:
        notes: [N] note array, sorted by onset; N ≥ 1.
        network: The trained network.
        settings: Settings of the decoder.
    """
    assert notes.size, "music has notes"
    parts = [_estimate_part(part, network, settings) for part in _parts(notes)]
    sizes = [part.beats_sec.size for part in parts]
    return BeatEstimate(
        np.concatenate([part.beats_sec for part in parts]),
        np.concatenate([part.downbeat for part in parts]),
        float(np.average([part.confidence for part in parts], weights=sizes)),
    )


def _parts(notes: Notes) -> Iterator[Notes]:
    """Notes between long pauses."""
    pauses = np.flatnonzero(np.diff(notes["onset_sec"]) > _LONGEST_PAUSE_SEC) + 1
    yield from np.split(notes, pauses)


def _estimate_part(notes: Notes, network: BeatNetwork, settings: DecodingSettings) -> BeatEstimate:
    start_sec = float(notes["onset_sec"][0]) - LEAD_SEC
    logit_T2 = network.logits(beat_features(notes, start_sec, frame_count(notes)))
    frame_B = decode_beats(logit_T2[:, 0], settings)
    beats_sec = start_sec + _between_frames(logit_T2[:, 0], frame_B) / FRAMES_PER_SEC
    beats_sec = snap_to_onsets(beats_sec, notes["onset_sec"])
    kept = np.isin(beats_sec, merge_close(beats_sec))
    frame_B, beats_sec = frame_B[kept], beats_sec[kept]
    if frame_B.size < 2:  # a chord or two: there is no tempo to find
        first_sec = float(notes["onset_sec"][0])
        return BeatEstimate(np.array([first_sec, first_sec + _NO_BEAT_SEC]), np.array([True, False]), 0.0)
    return BeatEstimate(
        beats_sec, decode_bars(logit_T2, frame_B, settings), confidence(logit_T2[:, 0], frame_B)
    )


def _between_frames(logit_T: NDArray[np.float32], frame_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """[B] places of the beats between frames: the vertex of a parabola through the logits of three frames."""
    at = np.clip(frame_B, 1, logit_T.size - 2)
    before, here, after = (logit_T[at + step].astype(np.float64) for step in (-1, 0, 1))
    curvature = np.minimum(before - 2 * here + after, -1e-6)
    is_peak = (here >= before) & (here >= after) & (at == frame_B)
    offset = np.clip((before - after) / (2 * curvature), -0.5, 0.5)
    return frame_B.astype(np.float64) + np.where(is_peak, offset, 0.0)


def snap_to_onsets(beats_sec: NDArray[np.float64], onset_sec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves each beat to the onset nearest to it, if there is one within 35 ms.

    Args:
        beats_sec: [B] beat times, at least 1/8 second apart.
        onset_sec: [N] ascending onsets.
    """
    after = np.clip(np.searchsorted(onset_sec, beats_sec), 0, onset_sec.size - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(onset_sec[before] - beats_sec) <= np.abs(onset_sec[after] - beats_sec)
    nearest = onset_sec[np.where(is_before, before, after)]
    return np.where(np.abs(nearest - beats_sec) <= _SNAP_SEC, nearest, beats_sec)
