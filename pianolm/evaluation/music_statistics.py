"""Statistics of how a piece goes on after its first beats.

Shapes: N notes, F = 48 frames a beat.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pianolm.evaluation.excerpts import within
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes
from pianolm.music.piece import Piece

SIXTEENTH = FRAMES // 4
BLIP_FRAMES = FRAMES // 8
BASS_BELOW = 48
"""MIDI pitch of C3."""

# Krumhansl and Kessler (1982): how well each pitch class fits a key, from its tonic upwards
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
Key = tuple[int, str]
"""Pitch class of the tonic, and major or minor."""

STATISTICS = {
    "bar_likeness": "bar likeness",
    "in_key": "in key, %",
    "bass_on_downbeat": "bars with bass on their first beat, %",
    "longer_than_a_bar": "notes longer than a bar, a piece",
    "blips": "notes under an eighth of a beat, %",
    "tempo_sd_bpm": "tempo, standard deviation in BPM",
    "notes_per_beat": "notes a beat",
}
"""What `statistics` returns, with the words of a table."""


def statistics(piece: Piece, first: int, last: int, key: Key, bar_beats: int) -> dict[str, float]:
    """Statistics of the notes struck in beats `first` to `last` − 1.

    Args:
        piece: The music, from a bar line on; the beats before `first` are those that bars are compared with.
        first: First beat.
        last: The beat after the last.
        key: Of the music before.
        bar_beats: Length of a bar.

    Returns:
        By the names in `STATISTICS`; NaN where there is no note, bar or beat to tell from.
    """
    notes = within(piece.frame_notes, first, last)
    length = notes["end"] - notes["onset"]
    tempo_bpm = 60 / np.diff(piece.beats_sec[first : last + 1])
    return {
        "bar_likeness": bar_likeness(piece.frame_notes, first, last, bar_beats),
        "in_key": 100 * share_in_key(notes, key),
        "bass_on_downbeat": 100 * share_with_bass(notes, first, last, bar_beats),
        "longer_than_a_bar": float((length > bar_beats * FRAMES).sum()) if last > first else math.nan,
        "blips": 100 * _mean(length < BLIP_FRAMES),
        "tempo_sd_bpm": float(tempo_bpm.std()) if tempo_bpm.size else math.nan,
        "notes_per_beat": notes.size / (last - first) if last > first else math.nan,
    }


def key_of(notes: FrameNotes) -> Key:
    """The key whose profile correlates most with the durations of the pitch classes."""
    sounding = np.bincount(notes["pitch"] % 12, weights=notes["end"] - notes["onset"], minlength=12)
    fits = {
        (tonic, mode): float(np.roll(sounding, -tonic) @ _standardized(profile))
        for tonic in range(12)
        for mode, profile in PROFILES.items()
    }
    return max(fits, key=fits.__getitem__)


def _standardized(profile: tuple[float, ...]) -> NDArray[np.float64]:
    return (np.array(profile) - np.mean(profile)) / np.std(profile)


def key_name(key: Key) -> str:
    """Such as `C# minor`."""
    return f"{TONICS[key[0]]} {key[1]}"


def share_in_key(notes: FrameNotes, key: Key) -> float:
    """Share of the notes in the key's scale: seven pitch classes, natural minor."""
    return _mean(np.isin((notes["pitch"].astype(int) - key[0]) % 12, SCALES[key[1]]))


def share_with_bass(notes: FrameNotes, first: int, last: int, bar_beats: int) -> float:
    """Share of the complete bars in beats `first` to `last` − 1 on whose first beat a note below C3 is struck."""
    low = notes["onset"][notes["pitch"] < BASS_BELOW] // FRAMES
    return _mean(np.isin(_bars(first, last, bar_beats), low))


def bar_likeness(notes: FrameNotes, first: int, last: int, bar_beats: int) -> float:
    """Mean over complete bars in beats `first` to `last` − 1 of the similarity to the most similar earlier bar.

    Similarity is the Jaccard index of the bars' (sixteenth, pitch) pairs. Earlier bars go back to beat 0; bars without
    notes do not count.
    """
    bars: list[set[tuple[int, int]]] = []
    likeness = []
    for start in _bars(0, last, bar_beats):
        here = within(notes, start, start + bar_beats)
        at = np.rint((here["onset"] - start * FRAMES) / SIXTEENTH).astype(int)
        bar = set(zip(at.tolist(), here["pitch"].tolist(), strict=True))
        if start >= first and bar and bars:
            likeness.append(max(len(bar & other) / len(bar | other) for other in bars))
        bars.append(bar)
    return _mean(np.array(likeness))


def _bars(first: int, last: int, bar_beats: int) -> range:
    """First beats of the complete bars in beats `first` to `last` − 1; a bar starts on beat 0."""
    return range(-(-first // bar_beats) * bar_beats, last - bar_beats + 1, bar_beats)


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if values.size else math.nan
