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
from pianolm.music.piece import Piece

ROUNDS = 8
"""Rounds in which velocities are drawn, the most certain first."""
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
    def from_pretrained(cls, directory: str | Path) -> DynamicsModel:
        """Loads what stage dynamics published.

        Raises:
            UserError: A file is missing, is of another format, or the two do not fit each other.
        """
        directory = Path(directory)
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
        self, piece: Piece, temperature: float = 1.0, seed: int = 0, median_velocity: float | None = None
    ) -> Piece:
        """The same notes with new velocities. Those of the piece have no influence.

        Args:
            piece: At least one note.
            temperature: Velocities are drawn in eight rounds, the most certain first, each round knowing those drawn
                before; 0 takes the expected velocity of every note.
            seed: The same seed gives the same velocities.
            median_velocity: How loud the piece is, 1–127; None leaves it to the model.

        Raises:
            UserError: The piece has no notes, or an argument is out of range.
        """
        if piece.notes.size == 0:
            raise UserError("render: a piece without notes found, expected at least one")
        if temperature < 0:
            raise UserError(f"temperature={temperature} found, expected at least 0")
        if median_velocity is not None and not 1 <= median_velocity <= 127:
            raise UserError(f"median_velocity={median_velocity} found, expected 1 to 127")
        notes = piece.frame_notes
        features = note_features(BeatNotes.of_frames(notes, piece.beats_sec, piece.bar_starts))
        level = math.nan if median_velocity is None else float(median_velocity)
        if temperature:
            velocity = self._drawn(features, level, temperature, np.random.default_rng(seed))
        else:
            probability_NV = _probabilities(
                self._logits(features, np.zeros(notes.size, np.int64), level), 1.0
            )
            velocity = np.rint(probability_NV @ BIN_CENTRES).astype(np.int64)
        rendered = notes.copy()
        rendered["velocity"][onset_order(notes)] = np.clip(velocity, 1, 127)
        return piece.with_velocities_of(rendered)

    def _drawn(
        self, features: NoteFeatures, level: float, temperature: float, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """[N] velocities, the most certain fixed first; as many each round as training hid at that stage."""
        size = features.pitch.size
        known = np.zeros(size, np.int64)
        for done in range(1, ROUNDS + 1):
            hidden = np.flatnonzero(known == 0)
            left = int(size * math.cos(math.pi / 2 * done / ROUNDS))  # still hidden after this round
            count = hidden.size - min(left, hidden.size)
            if not count:
                continue
            probability_NV = _probabilities(self._logits(features, known, level)[hidden], temperature)
            entropy_N = -(probability_NV * np.log(np.maximum(probability_NV, 1e-12))).sum(axis=1)
            chosen = np.argsort(entropy_N, kind="stable")[:count]
            cumulative = probability_NV[chosen].cumsum(axis=1)
            bins = (cumulative < rng.random((count, 1)) * cumulative[:, -1:]).sum(axis=1)
            within = rng.integers(0, BIN_WIDTH, count)
            known[hidden[chosen]] = np.maximum(bins * BIN_WIDTH + within, 1)
        return known

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


def _probabilities(logits_NV: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    scaled = logits_NV.astype(np.float64) / temperature
    exponential = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)
