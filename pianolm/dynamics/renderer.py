"""The dynamics model applied: new velocities for the notes of a piece.

Shapes: N notes in order of onset and pitch, V = 32 velocity bins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from pianolm.data.beat_notes import BeatNotes, onset_order
from pianolm.dynamics.batches import WINDOW_NOTES, Window, collate, part
from pianolm.dynamics.features import BIN_CENTRES, BIN_WIDTH, NoteFeatures, note_features
from pianolm.dynamics.files import CONFIG_FILE, FORMAT, WEIGHTS_FILE
from pianolm.dynamics.network import DynamicsNetwork, DynamicsSizes
from pianolm.errors import UserError
from pianolm.models import DYNAMICS, model_path
from pianolm.music.piece import Piece

TEMPERATURE, SPREAD = 1.0, 0.5
"""Defaults of `DynamicsModel.render`."""
_DRAWN = 1 / 50
"""Share of the notes whose velocities are drawn; the others follow them. More make takes differ more, and fit less."""
_HOP_NOTES = WINDOW_NOTES // 2
_WINDOWS_AT_ONCE = 16


class DynamicsModel:
    """Gives velocities to notes; all notes of a piece are read, past and to come.

    Args:
        network: The trained network.
    """

    def __init__(self, network: DynamicsNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def from_pretrained(cls, directory: str | Path = DYNAMICS) -> DynamicsModel:
        """Loads the bundled model, what stage dynamics published in a directory, or `user/name` on the hub.

        Raises:
            UserError: A file is missing, is of another format, or the two do not fit each other.
        """
        directory = model_path(directory, (CONFIG_FILE, WEIGHTS_FILE))
        try:
            config = json.loads((directory / CONFIG_FILE).read_text("utf-8"))
            if config["format"] != FORMAT:
                raise ValueError(f"format {config['format']!r}")
            network = DynamicsNetwork(DynamicsSizes(int(config["width"]), int(config["layers"])))
            tensors = {name: t.float() for name, t in load_file(directory / WEIGHTS_FILE).items()}
            network.load_state_dict(tensors)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            raise UserError(
                f"{directory}: no readable dynamics model ({error}); expected {CONFIG_FILE} and {WEIGHTS_FILE} as "
                "stage=dynamics publishes them"
            ) from error
        return cls(network)

    def render(
        self,
        piece: Piece,
        temperature: float | None = None,
        seed: int = 0,
        median_velocity: float | None = None,
        spread: float = SPREAD,
    ) -> Piece:
        """The same notes with new velocities. Those of the piece have no influence.

        Args:
            piece: At least one note.
            temperature: Of the velocities of a fiftieth of the notes, which are drawn; all others are those expected
                beside them, so that every seed gives another take. 0 draws none: the expected velocity of every note.
                None: 1.
            seed: The same seed gives the same velocities.
            median_velocity: How loud the piece is, 1–127: the median of the new velocities; None leaves it to the
                model.
            spread: Expected velocities differ less than a pianist's: 0 takes them as they are, 1 spreads them over the
                distribution that the model expects of the whole piece, values between go part of the way.

        Raises:
            UserError: The piece has no notes, or an argument is out of range.
        """
        temperature = TEMPERATURE if temperature is None else temperature
        _check(piece, temperature, median_velocity, spread)
        notes = piece.frame_notes
        features = note_features(BeatNotes.of_frames(notes, piece.beats_sec, piece.bar_starts))
        level = math.nan if median_velocity is None else float(median_velocity)
        hidden = np.zeros(notes.size, np.int64)
        probability_NV = self._probabilities(features, hidden, level)
        velocity = probability_NV @ BIN_CENTRES
        if temperature:
            rng = np.random.default_rng(seed)
            velocity = self._take(features, level, probability_NV, temperature, rng)
        velocity = _spread_out(velocity, probability_NV.mean(axis=0), spread)
        if median_velocity is not None:
            velocity += level - np.median(velocity)
        rendered = notes.copy()
        rendered["velocity"][onset_order(notes)] = np.clip(np.rint(velocity), 1, 127)
        return piece.with_velocities_of(rendered)

    def _take(
        self,
        features: NoteFeatures,
        level: float,
        probability_NV: NDArray[np.float64],
        temperature: float,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """[N] velocities of which some were drawn: the others follow these, then these follow the others.

        Were all of them drawn one after the other, their correlation with a pianist's would be half of this.
        """
        size = features.pitch.size
        drawn = rng.permutation(size)[: math.ceil(size * _DRAWN)]
        known = np.zeros(size, np.int64)
        known[drawn] = _draw(probability_NV[drawn], temperature, rng)
        velocity = self._probabilities(features, known, level) @ BIN_CENTRES
        known = np.clip(np.rint(velocity), 1, 127).astype(np.int64)
        known[drawn] = 0
        velocity[drawn] = self._probabilities(features, known, level)[drawn] @ BIN_CENTRES
        return velocity

    def _probabilities(
        self, features: NoteFeatures, known: NDArray[np.int64], level: float
    ) -> NDArray[np.float64]:
        """[N, V] probabilities of velocities."""
        logits_NV = self._logits(features, known, level).astype(np.float64)
        return _softmax(logits_NV)

    @torch.inference_mode()
    def _logits(self, features: NoteFeatures, known: NDArray[np.int64], level: float) -> NDArray[np.float32]:
        """[N, V] logits; of notes in several windows, those of the window in which a note is most central."""
        spans = list(_spans(features.pitch.size))
        out = np.empty((features.pitch.size, BIN_CENTRES.size), np.float32)
        for first in range(0, len(spans), _WINDOWS_AT_ONCE):
            batch_spans = spans[first : first + _WINDOWS_AT_ONCE]
            windows = [
                Window(part(features, notes), known[notes], known[notes], level) for notes, _ in batch_spans
            ]
            logits_BNV = self.network(collate(windows)).numpy()
            for (notes, kept), logits_NV in zip(batch_spans, logits_BNV, strict=True):
                out[kept] = logits_NV[kept.start - notes.start : kept.stop - notes.start]
        return out


def _spans(n_notes: int) -> Iterator[tuple[slice, slice]]:
    """Windows that overlap by half, and the notes of which each gives the logits."""
    starts = [0, *range(_HOP_NOTES, max(n_notes - _HOP_NOTES, 0), _HOP_NOTES)]
    starts[-1] = max(min(starts[-1], n_notes - WINDOW_NOTES), 0)
    quarter = _HOP_NOTES // 2
    for number, start in enumerate(starts):
        low = start + quarter if number else 0
        high = starts[number + 1] + quarter if number + 1 < len(starts) else n_notes
        yield slice(start, min(start + WINDOW_NOTES, n_notes)), slice(low, high)


def _softmax(logits_NV: NDArray[np.float64]) -> NDArray[np.float64]:
    exponential = np.exp(logits_NV - logits_NV.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def _draw(
    probability_NV: NDArray[np.float64], temperature: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """[N] velocities, drawn from their distributions at a temperature."""
    sharpened = _softmax(np.log(np.maximum(probability_NV, 1e-12)) / temperature)
    cumulative = sharpened.cumsum(axis=1)
    bins = (cumulative < rng.random((len(sharpened), 1)) * cumulative[:, -1:]).sum(axis=1)
    return np.maximum(bins * BIN_WIDTH + rng.integers(0, BIN_WIDTH, bins.size), 1)


def _spread_out(
    velocity_N: NDArray[np.float64], share_V: NDArray[np.float64], spread: float
) -> NDArray[np.float64]:
    """Velocities moved towards those that the same ranks have in a distribution over bins."""
    rank_N = (np.argsort(np.argsort(velocity_N, kind="stable"), kind="stable") + 0.5) / velocity_N.size
    cumulative = np.concatenate([[0.0], share_V.cumsum()])
    edges = np.arange(cumulative.size) * BIN_WIDTH - 0.5
    return (1 - spread) * velocity_N + spread * np.interp(rank_N, cumulative / cumulative[-1], edges)


def _check(piece: Piece, temperature: float, median_velocity: float | None, spread: float) -> None:
    """Raises UserError for arguments of `DynamicsModel.render` that are out of range."""
    if piece.notes.size == 0:
        raise UserError("render: a piece without notes found, expected at least one")
    if temperature < 0:
        raise UserError(f"temperature={temperature} found, expected at least 0")
    if median_velocity is not None and not 1 <= median_velocity <= 127:
        raise UserError(f"median_velocity={median_velocity} found, expected 1 to 127")
    if not 0 <= spread <= 1:
        raise UserError(f"spread={spread} found, expected 0 to 1")
