"""Music in two voices, and other renditions of it."""

from __future__ import annotations

import numpy as np

from pianolm.music.notes import Notes, make_notes


def music(seed: int, notes: int = 300) -> Notes:
    """A melody and a bass of random steps, half as many notes in the bass."""
    rng = np.random.default_rng(seed)
    onset = np.cumsum(rng.choice([0.15, 0.3, 0.45], notes))
    melody = 72 + np.cumsum(rng.integers(-4, 5, notes)) % 24
    bass = 36 + rng.integers(0, 16, notes // 2)
    onsets, pitches = np.concatenate([onset, onset[::2][: bass.size]]), np.concatenate([melody, bass])
    return make_notes(onsets, onsets + 0.1, pitches, np.full(onsets.size, 64))


def rendition(notes: Notes, seed: int, shift: int = 0, wrong: float = 0.03, missing: float = 0.03) -> Notes:
    """The same music at another tempo that changes, chords not quite together, with wrong and missing notes."""
    rng = np.random.default_rng(seed)
    notes = notes[rng.random(notes.size) >= missing]
    tempo = 1.3 + 0.2 * np.sin(notes["onset_sec"] / 7)
    onset = np.cumsum(np.diff(notes["onset_sec"], prepend=0.0) * tempo) + rng.normal(0, 0.008, notes.size)
    pitch = notes["pitch"].astype(int) + shift
    pitch += np.where(rng.random(notes.size) < wrong, rng.choice([-2, -1, 1, 2], notes.size), 0)
    onset = np.maximum(onset, 0)
    return make_notes(onset, onset + 0.1, pitch, notes["velocity"])


def joined(*parts: Notes) -> Notes:
    """Pieces one after another."""
    start, moved = 0.0, []
    for part in parts:
        part = part.copy()
        part["onset_sec"] += start
        part["offset_sec"] += start
        start = float(part["offset_sec"].max()) + 0.2
        moved.append(part)
    return np.concatenate(moved)
