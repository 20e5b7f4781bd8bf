"""Prompts of other kinds for the bundled model: a Bach prelude, a ragtime, eight bars of chords, one note.

    python prompts.py OUT

writes them to OUT as MIDI with their beats, tempo and dynamics. The prelude is the first four bars of Bach's in C major
(BWV 846, which `experiment=box` leaves out of training); the others were made up for this folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pianolm import Piece
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import make_notes

Struck = tuple[float, float, int, int]
"""Onset and length in beats, pitch, velocity."""

PRELUDE = ((60, 64, 67, 72, 76), (60, 62, 69, 74, 77), (59, 62, 67, 74, 77), (60, 64, 67, 72, 76))
CHORDS = ((48, 60, 64, 67), (45, 60, 64, 69), (41, 60, 65, 69), (43, 59, 62, 67))
RAGTIME_BASS = (
    *((36, (55, 60, 64)), (43, (55, 60, 64)), (36, (55, 60, 64)), (43, (55, 60, 64))),
    *((41, (57, 60, 65)), (36, (57, 60, 65)), (38, (54, 57, 60)), (43, (53, 55, 59))),
)
RAGTIME_TUNE = (
    *((0.25, 0.25, 76), (0.5, 0.5, 79), (1, 0.25, 76), (1.25, 0.5, 84), (1.75, 0.25, 79)),
    *((2, 0.25, 76), (2.25, 0.5, 79), (2.75, 0.25, 76), (3, 0.5, 74), (3.5, 0.5, 72)),
    *((4.25, 0.25, 77), (4.5, 0.5, 81), (5, 0.25, 77), (5.25, 0.5, 84), (5.75, 0.25, 81)),
    *((6, 0.25, 78), (6.25, 0.5, 81), (6.75, 0.25, 74), (7, 0.5, 79), (7.5, 0.5, 77)),
)


def prelude() -> Iterable[Struck]:
    """Each chord is broken twice in sixteenths; its two lowest notes are held."""
    for bar, chord in enumerate(PRELUDE):
        for half in (4 * bar, 4 * bar + 2):
            for place, voice in enumerate((0, 1, 2, 3, 4, 2, 3, 4)):
                held = {0: 2.0, 1: 1.75}.get(place, 0.25)
                yield half + place / 4, held, chord[voice], 66 if place == 0 else 54 + 2 * voice


def ragtime() -> Iterable[Struck]:
    """Two passes of a bass with chords off the beat and a syncopated tune above, two beats a bar."""
    for begin in (0, 8):
        for beat, (bass, chord) in enumerate(RAGTIME_BASS):
            yield begin + beat, 0.45, bass, 78
            yield from ((begin + beat + 0.5, 0.4, pitch, 62) for pitch in chord)
        yield from ((begin + onset, length * 0.95, pitch, 88) for onset, length, pitch in RAGTIME_TUNE)


def chords() -> Iterable[Struck]:
    """Eight bars of whole notes: C, A minor, F and G, twice."""
    for bar in range(8):
        for voice, pitch in enumerate(CHORDS[bar % 4]):
            yield 4 * bar, 3.9, pitch, 72 if voice == 0 else 60


PROMPTS = {
    "prelude": (prelude, 72, 4),
    "ragtime": (ragtime, 92, 2),
    "chords": (chords, 84, 4),
    "one-note": (lambda: [(0.0, 1.0, 67, 70)], 90, 4),
}
"""By name: the notes, beats a minute and beats a bar."""


def piece_of(struck: Iterable[Struck], bpm: float, bar_beats: int) -> Piece:
    """The notes on a steady tempo, in whole bars."""
    onset, length, pitch, velocity = map(np.array, zip(*struck, strict=True))
    beats = bar_beats * int(np.ceil((onset + length).max() / bar_beats))
    beats_sec = np.arange(beats + 1) * 60 / bpm
    notes = make_notes(onset * 60 / bpm, (onset + length) * 60 / bpm, pitch, velocity)
    return Piece.from_notes(notes, BeatAnnotation(beats_sec, np.arange(beats + 1) % bar_beats == 0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, (struck, bpm, bar_beats) in PROMPTS.items():
        piece_of(struck(), bpm, bar_beats).to_midi(out / f"{name}.mid")
