"""Reminders of what sounds, for TSD and REMI: what explicit ties tell pianolm.

A token that moves time into another beat is followed by two tokens for each pitch that sounds on over the line at which
this beat begins, in ascending order: the duration bin from its last strike to the line, and the pitch. These are the
facts, the bins and the order of `tokenizer.ties=explicit` (`pianolm.tokenizer.ties`). They follow from the tokens
before them, so they are neither scored nor learned.

Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, duration_bins
from pianolm.tokenizer.vocabulary import DURATION_BINS

ELAPSED = "Elapsed"
"""Type of the duration bins, which MidiTok lacks; the pitch that follows one is an ordinary `Pitch`."""
_BAR_FRAMES = 4 * FRAMES
"""Without metre, MidiTok's bars have four beats."""


class Reminders:
    """Inserts the reminders of a piece, and finds them.

    Args:
        vocabulary: MidiTok's tokens in the order of their ids.

    Attributes:
        tokens: Further tokens, whose ids follow those of the vocabulary.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._meaning = [_meaning(token) for token in vocabulary]
        self._first = len(self._meaning)
        self._pitch_id = {pitch: i for i, (kind, pitch) in enumerate(self._meaning) if kind == "Pitch"}
        self.tokens = [f"{ELAPSED}_{number}" for number in range(DURATION_BINS)]

    def insert(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sequence [T] with its reminders."""
        found: list[int] = []
        time = pitch = beat = 0
        bar = -_BAR_FRAMES
        struck: dict[int, tuple[int, int]] = {}  # onset and end of the last note of each pitch, in frames
        for token in ids.tolist():
            found.append(token)
            kind, value = self._meaning[token]
            if kind == "Pitch":
                pitch = value
            elif kind == "Duration":
                struck[pitch] = time, time + value
            elif kind in ("TimeShift", "Bar", "Position"):
                bar += _BAR_FRAMES * (kind == "Bar")
                time = time + value if kind == "TimeShift" else bar + value
                if time // FRAMES > beat:
                    beat = time // FRAMES
                    struck = {p: note for p, note in struck.items() if note[1] > beat * FRAMES}
                    found += self._of(struck, beat * FRAMES)
        return np.array(found, np.int64)

    def _of(self, struck: dict[int, tuple[int, int]], line: int) -> list[int]:
        """The reminders of what sounds on over a beat line, in frames."""
        pitches = sorted(struck)
        elapsed = [min(line - struck[pitch][0], MAX_TIE_FRAMES) for pitch in pitches]
        bins = self._first + duration_bins(np.array(elapsed, np.int64))
        pitch_ids = np.array([self._pitch_id[pitch] for pitch in pitches], np.int64)
        return np.stack([bins, pitch_ids], axis=1).ravel().tolist()

    def given(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[T] which tokens are reminders. The first one of a window may be one that is not recognised."""
        elapsed = ids >= self._first
        return elapsed | np.append(False, elapsed[:-1])


def _meaning(token: str) -> tuple[str, int]:
    """Type and value of a token: a pitch, or frames; 0 for other types.

    Times and durations are `beats.parts.parts of a beat`.
    """
    kind, _, value = token.partition("_")
    if kind in ("TimeShift", "Duration"):
        beats, parts, resolution = map(int, value.split("."))
        return kind, (beats * resolution + parts) * FRAMES // resolution
    return kind, int(value) if kind in ("Pitch", "Position") else 0
