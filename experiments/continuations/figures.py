"""Figures of a continuation: those of `evaluate=samples`, and some more that describe it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pianolm.evaluation.excerpts import within
from pianolm.evaluation.music_statistics import SIXTEENTH, Key, statistics
from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece

NEAR = 2
"""Frames that an onset may be off the grid: 1/24 beat."""

BAR_BEATS = 4


def figures(piece: Piece, first: int, last: int, key: Key) -> dict[str, float | int]:
    """Figures of the notes struck in beats `first` to `last` − 1."""
    notes = piece.frame_notes
    struck = within(notes, first, last)
    pitch, velocity = struck["pitch"].astype(int), struck["velocity"].astype(float)
    share = np.bincount(pitch % 12, minlength=12) / pitch.size
    share = share[share > 0]
    inside = np.clip(np.stack([notes["onset"], notes["end"]]), first * FRAMES, last * FRAMES)
    found = statistics(piece, first, last, key, BAR_BEATS)
    return {
        "notes": int(pitch.size),
        "notes_per_beat": found["notes_per_beat"],
        "pitch_low": int(pitch.min()),
        "pitch_high": int(pitch.max()),
        "pitch_mean": float(pitch.mean()),
        "polyphony": float((inside[1] - inside[0]).sum() / ((last - first) * FRAMES)),
        "over_a_bar": int(found["longer_than_a_bar"]),
        "under_an_eighth_beat": found["blips"] / 100,
        "velocity_mean": float(velocity.mean()),
        "velocity_sd": float(velocity.std()),
        "on_eighths": _on_grid(struck["onset"], FRAMES // 2),
        "on_sixteenths": _on_grid(struck["onset"], SIXTEENTH),
        "in_key": found["in_key"] / 100,
        "pitch_class_bits": float(-(share * np.log2(share)).sum()),
        "bars_with_bass": found["bass_on_downbeat"] / 100,
        "bar_likeness": found["bar_likeness"],
        "tempo_sd": found["tempo_sd_bpm"],
    }


def _on_grid(onset_N: NDArray[np.int64], step: int) -> float:
    off = onset_N % step
    return float((np.minimum(off, step - off) <= NEAR).mean())
