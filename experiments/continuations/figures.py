"""Statistics of a stretch of music, and the longest run of notes it shares with other music.

Shapes: N notes, F = 48 frames a beat, L notes of a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes

SIXTEENTH = FRAMES // 4
NEAR = 2
"""Frames that an onset may be off the grid: 1/24 beat."""

BASS_BELOW = 48
"""MIDI pitch of C3."""

BAR_BEATS = 4
LONGEST_RUN = 256

# Krumhansl and Kessler (1982): how well each pitch class fits a key, from its tonic upwards
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
Key = tuple[int, str]


def within(notes: FrameNotes, first: int, last: int) -> FrameNotes:
    """The notes struck in beats `first` to `last` − 1."""
    return notes[(notes["onset"] >= first * FRAMES) & (notes["onset"] < last * FRAMES)]


def key_of(notes: FrameNotes) -> Key:
    """The key whose profile correlates most with the durations of the pitch classes."""
    sounding = np.bincount(notes["pitch"] % 12, weights=notes["end"] - notes["onset"], minlength=12)
    fits = {
        (tonic, mode): np.corrcoef(np.roll(sounding, -tonic), profile)[0, 1]
        for tonic in range(12)
        for mode, profile in PROFILES.items()
    }
    return max(fits, key=fits.__getitem__)


def key_name(key: Key) -> str:
    return f"{TONICS[key[0]]} {key[1]}"


def figures(notes: FrameNotes, first: int, last: int, key: Key) -> dict[str, float | int]:
    """Statistics of the notes struck in beats `first` to `last` − 1; `notes` are those of the whole piece."""
    struck = within(notes, first, last)
    pitch, velocity = struck["pitch"].astype(int), struck["velocity"].astype(float)
    length = struck["end"] - struck["onset"]
    share = np.bincount(pitch % 12, minlength=12) / pitch.size
    share = share[share > 0]
    inside = np.clip(np.stack([notes["onset"], notes["end"]]), first * FRAMES, last * FRAMES)
    return {
        "notes": int(pitch.size),
        "notes_per_beat": pitch.size / (last - first),
        "pitch_low": int(pitch.min()),
        "pitch_high": int(pitch.max()),
        "pitch_mean": float(pitch.mean()),
        "polyphony": float((inside[1] - inside[0]).sum() / ((last - first) * FRAMES)),
        "over_a_bar": int((length > BAR_BEATS * FRAMES).sum()),
        "under_an_eighth_beat": float((length < FRAMES // 8).mean()),
        "velocity_mean": float(velocity.mean()),
        "velocity_sd": float(velocity.std()),
        "on_eighths": _on_grid(struck["onset"], FRAMES // 2),
        "on_sixteenths": _on_grid(struck["onset"], SIXTEENTH),
        "in_key": float(np.isin((pitch - key[0]) % 12, SCALES[key[1]]).mean()),
        "pitch_class_bits": float(-(share * np.log2(share)).sum()),
        "bars_with_bass": _bars_with_bass(struck, first, last),
        "bar_likeness": _bar_likeness(notes, first, last),
    }


def _on_grid(onset_N: NDArray[np.int64], step: int) -> float:
    off = onset_N % step
    return float((np.minimum(off, step - off) <= NEAR).mean())


def _bars_with_bass(struck: FrameNotes, first: int, last: int) -> float:
    """Share of bars on whose first beat a note below C3 is struck."""
    low = struck["onset"][struck["pitch"] < BASS_BELOW] // FRAMES
    return float(np.isin(np.arange(first, last, BAR_BEATS), low).mean())


def _bar_likeness(notes: FrameNotes, first: int, last: int) -> float:
    """Mean over the bars of the similarity to the most similar earlier bar, prompt included.

    Similarity is the Jaccard index of the bars' (sixteenth, pitch) pairs.
    """
    bars: list[set[tuple[int, int]]] = []
    likeness = []
    for start in range(0, last, BAR_BEATS):
        here = within(notes, start, start + BAR_BEATS)
        at = np.rint((here["onset"] - start * FRAMES) / SIXTEENTH).astype(int)
        bar = set(zip(at.tolist(), here["pitch"].tolist(), strict=True))
        if start >= first and bar:
            likeness.append(max(len(bar & other) / len(bar | other) for other in bars))
        bars.append(bar)
    return float(np.mean(likeness))


class Runs:
    """An index of runs of notes.

    Two runs are equal if they have the same pitches and the same distances between onsets, rounded to sixteenths, so
    that a copy is found whatever its rubato. Notes are in order of (sixteenth, pitch).

    Args:
        pieces: The notes of each piece; no run goes from one to the next.
    """

    def __init__(self, pieces: Sequence[FrameNotes]) -> None:
        self._hashes = _Hashes(pieces)
        self._runs: dict[int, NDArray[np.uint64]] = {}

    def longest(self, notes: FrameNotes) -> int:
        """Length of the longest run of notes that is also in the index."""
        theirs = _Hashes([notes])
        low, high = 0, min(LONGEST_RUN, notes.size)
        while low < high:
            length = (low + high + 1) // 2
            if length not in self._runs:
                self._runs[length] = np.sort(self._hashes.runs(length))
            known, sought = self._runs[length], theirs.runs(length)
            at = np.searchsorted(known, sought)
            if (known[at[at < known.size]] == sought[at < known.size]).any():
                low = length
            else:
                high = length - 1
        return low


class _Hashes:
    """64-bit hashes of runs of notes. The first note counts with its pitch, the others with pitch and distance.

    Hashes of 1, 2, 4, … notes are made from those of half as many; a run of any length is two of them that overlap.
    """

    def __init__(self, pieces: Sequence[FrameNotes]) -> None:
        pitches, events, numbers = [], [], []
        for number, notes in enumerate(pieces):
            at = np.rint(notes["onset"] / SIXTEENTH).astype(np.int64)
            order = np.lexsort((notes["pitch"], at))
            pitch = notes["pitch"][order].astype(np.uint64)
            distance = np.diff(at[order], prepend=0).astype(np.uint64)
            pitches.append(pitch)
            events.append((distance << np.uint64(8)) | pitch)
            numbers.append(np.full(pitch.size, number))
        self._pitch, self._piece = np.concatenate(pitches), np.concatenate(numbers)
        self._powers = [_mixed(np.concatenate(events))]
        while 2 ** len(self._powers) <= LONGEST_RUN:
            half, size = self._powers[-1], 2 ** (len(self._powers) - 1)
            self._powers.append(_joined(half[: max(half.size - size, 0)], half[size:]))

    def runs(self, length: int) -> NDArray[np.uint64]:
        """Hashes of all runs of `length` notes that lie within one piece."""
        count = max(self._pitch.size - length + 1, 0)
        found = _mixed(self._pitch[:count])
        if length > 1:
            power = (length - 1).bit_length() - 1
            of, ahead = self._powers[power], length - 2**power
            found = _joined(found, _joined(of[1 : 1 + count], of[ahead : ahead + count]))
        return found[self._piece[:count] == self._piece[length - 1 : length - 1 + count]]


def _joined(first: NDArray[np.uint64], then: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _mixed(first * np.uint64(0x9E3779B97F4A7C15) + then)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads numbers over 64 bits (splitmix64)."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
