"""What the beat tracker hears: notes → features in frames of 20 ms.

Times fall between frames, so a note is divided between its two nearest frames by distance. Every feature is a sum over
notes; velocities are relative to the median of the piece, because recordings differ in loudness.

Shapes: N notes, T frames, F = `FEATURES` features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pianolm.music.notes import Notes

FRAMES_PER_SEC = 50
LEAD_SEC = 1.0
"""Time before the first onset, so that a beat may lie there."""
TAIL_SEC = 2.0
"""Time after the last onset."""
LOWEST_PITCH, HIGHEST_PITCH = 21, 108
_KEYS = HIGHEST_PITCH - LOWEST_PITCH + 1
_BAND = 8
_BANDS = _KEYS // _BAND
_OUTER_SEC = 0.3
"""An onset with no lower one within this time on both sides is of the bass; the treble likewise."""

_LOUDNESS = _KEYS
_DURATION = _LOUDNESS + _BANDS
_BASS = _DURATION + _BANDS
_BASS_DURATION = _BASS + 1
_TREBLE = _BASS + 2
_RELEASE = _BASS + 3
FEATURES = _BASS + 4
"""88 keys struck; loudness and duration of the notes struck, in 11 bands of pitch; bass notes struck, and their
durations; treble notes struck; keys released."""


def frame_count(notes: Notes) -> int:
    """Number of frames T of notes, from `LEAD_SEC` before the first onset to `TAIL_SEC` after the last one."""
    seconds = float(notes["onset_sec"].max() - notes["onset_sec"].min()) + LEAD_SEC + TAIL_SEC
    return int(np.ceil(seconds * FRAMES_PER_SEC)) + 1


def beat_features(notes: Notes, start_sec: float, n_frames: int) -> NDArray[np.float32]:
    """[T, F] features of notes.

    Args:
        notes: [N] note array, sorted by onset.
        start_sec: Time of frame 0. Onsets before it or after the last frame are left out.
        n_frames: T.
    """
    onset_frame = (notes["onset_sec"] - start_sec) * FRAMES_PER_SEC
    pitch = np.clip(notes["pitch"].astype(np.int64), LOWEST_PITCH, HIGHEST_PITCH)
    key = pitch - LOWEST_PITCH
    band = key // _BAND
    velocity = notes["velocity"].astype(np.float64)
    loudness = np.clip((velocity - np.median(velocity)) / 24, -2, 2) if velocity.size else velocity
    seconds = notes["offset_sec"] - notes["onset_sec"]
    duration = np.clip(np.log2(np.maximum(seconds, 0.01) / 0.25) / 2, -1.5, 1.5)
    is_bass, is_treble = _outer_voices(notes["onset_sec"], pitch)
    ones = np.ones(pitch.size)
    table = _Table(n_frames)
    table.add(onset_frame, key, ones)
    table.add(onset_frame, _LOUDNESS + band, loudness)
    table.add(onset_frame, _DURATION + band, duration)
    table.add(onset_frame[is_bass], _BASS, ones[is_bass])
    table.add(onset_frame[is_bass], _BASS_DURATION, duration[is_bass])
    table.add(onset_frame[is_treble], _TREBLE, ones[is_treble])
    table.add((notes["offset_sec"] - start_sec) * FRAMES_PER_SEC, _RELEASE, ones)
    return table.values()


class _Table:
    """Sums of values at places between frames."""

    def __init__(self, n_frames: int) -> None:
        self._n_frames = n_frames
        self._places: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float64]] = []

    def add(
        self, frame: NDArray[np.float64], column: NDArray[np.int64] | int, value: NDArray[np.float64]
    ) -> None:
        """Adds values [N] at frames [N], which need not be whole, in columns [N] or one column."""
        before = np.floor(frame).astype(np.int64)
        after = frame - before
        columns = np.broadcast_to(column, before.shape)
        for row, weight in ((before, 1 - after), (before + 1, after)):
            inside = (row >= 0) & (row < self._n_frames)
            self._places.append(row[inside] * FEATURES + columns[inside])
            self._values.append((value * weight)[inside])

    def values(self) -> NDArray[np.float32]:
        """[T, F] sums."""
        size = self._n_frames * FEATURES
        sums = np.bincount(np.concatenate(self._places), np.concatenate(self._values), minlength=size)
        return sums.reshape(self._n_frames, FEATURES).astype(np.float32)


def _outer_voices(
    onset_sec: NDArray[np.float64], pitch: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[N] whether each note is the lowest, and the highest, of those struck within `_OUTER_SEC` of it."""
    if not pitch.size:
        return np.zeros(0, bool), np.zeros(0, bool)
    first = np.searchsorted(onset_sec, onset_sec - _OUTER_SEC, side="left")
    stop = np.searchsorted(onset_sec, onset_sec + _OUTER_SEC, side="right")
    pairs = np.stack([first, stop], axis=1).ravel()
    # reduceat takes places inside the array only; the value added at the end is no extreme
    lowest = np.minimum.reduceat(np.append(pitch, 127), pairs)[::2]
    highest = np.maximum.reduceat(np.append(pitch, 0), pairs)[::2]
    return pitch == lowest, pitch == highest
