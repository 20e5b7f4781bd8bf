"""Ridge regression of velocities on features of the score, as scikit-learn fits it.

Shapes: N notes in order of onset and pitch, F features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pianolm.data.beat_notes import BeatNotes, onset_order
from pianolm.data.cell_store import CellStore
from pianolm.dynamics.features import note_features
from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece

_NEAR_BEATS, _FAR_BEATS = 0.5, 4.0
"""How far the neighbours of a note reach whose number and pitches are counted, on either side."""
_PENALTY = 10.0


class RidgeDynamics:
    """Velocities that are linear in the features of a note, in their squares, too, if `squares`.

    Args:
        squares: Whether the squares of the features are features.
        told: Whether the median velocity of a piece is told: what is learned is the difference from it, and new
            velocities have that median.
    """

    def __init__(self, squares: bool, told: bool) -> None:
        self._squares, self._told = squares, told
        self._model = make_pipeline(StandardScaler(), Ridge(alpha=_PENALTY))

    def fit(self, pieces: Iterable[BeatNotes]) -> RidgeDynamics:
        """Fits all notes of all pieces, each note as much as any other."""
        features, velocities = [], []
        for music in pieces:
            features.append(self._features(music))
            level = float(np.median(music.velocity)) if self._told else 0.0
            velocities.append((music.velocity - level).astype(np.float32))
        self._model.fit(np.concatenate(features), np.concatenate(velocities))
        return self

    def render(self, piece: Piece, index: int, median: float) -> Piece:
        """A piece with new velocities; `pianolm.evaluation.dynamics.Render`."""
        notes = piece.frame_notes
        music = BeatNotes.of_frames(notes, piece.beats_sec, piece.bar_starts)
        velocity = self._model.predict(self._features(music))
        if self._told:  # it knows the median, so it keeps it
            velocity += median - np.median(velocity)
        rendered = notes.copy()
        rendered["velocity"][onset_order(notes)] = np.clip(np.rint(velocity), 1, 127)
        return piece.with_velocities_of(rendered)

    def _features(self, music: BeatNotes) -> NDArray[np.float32]:
        linear = score_features(music)
        return np.concatenate([linear, linear**2], axis=1) if self._squares else linear


def score_features(music: BeatNotes) -> NDArray[np.float32]:
    """[N, F]: pitch, place in beat and bar, lengths, times to the neighbours, place in the chord, and density."""
    notes = note_features(music)
    in_beat = notes.frame / FRAMES
    columns = [
        *notes.values.T,  # lengths, times, place in the chord
        music.pitch / 12,
        np.maximum(music.pitch - 72, 0) / 12,  # registers, in which the slope may be another
        np.maximum(48 - music.pitch, 0) / 12,
        notes.frame == 0,
        notes.frame == FRAMES // 2,
        np.sin(2 * np.pi * in_beat),
        np.cos(2 * np.pi * in_beat),
        notes.bar_position == 1,
        notes.bar_position > 0,
        (notes.bar_position == 1) & (notes.frame == 0),
        (notes.bar_position - 1) * 2 == notes.bar_length,  # the middle of the bar
        music.onset_beat / music.n_beats,
        *_neighbours(music, _NEAR_BEATS),
        *_neighbours(music, _FAR_BEATS),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _neighbours(music: BeatNotes, beats: float) -> list[NDArray[np.float64]]:
    """Of each note and all that begin near it: their number, and how far it is from their mean, highest and lowest."""
    onset, pitch = music.onset_beat, music.pitch
    first = np.searchsorted(onset, onset - beats, "left")
    stop = np.searchsorted(onset, onset + beats, "right")
    sums = np.concatenate([[0], np.cumsum(pitch)])
    mean = (sums[stop] - sums[first]) / (stop - first)
    # reduceat reduces from each even index to the next one; the odd results lie between two windows
    bounds = np.stack([first, stop], axis=1).ravel()
    highest = np.maximum.reduceat(np.append(pitch, 0), bounds)[::2]
    lowest = np.minimum.reduceat(np.append(pitch, 127), bounds)[::2]
    return [np.log2(stop - first), (pitch - mean) / 12, (highest - pitch) / 12, (pitch - lowest) / 12]


def training_music(store: CellStore) -> Iterable[BeatNotes]:
    """The training performances of a store, without those of one velocity."""
    return (
        BeatNotes.of_store(store, i)
        for i in store.split("train")
        if store.pieces[i].kind == "performance" and not store.flat(i)
    )
