"""The written score. Positions are in ticks, 48 a beat, from the first downbeat."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from pianolm.data.sources.demo.theory import Chord, Key, Metre


class Role(IntEnum):
    """Part that a note belongs to; melody and descant are played by the right hand."""

    MELODY = 0
    DESCANT = 1
    INNER = 2
    BASS = 3


class Note(NamedTuple):
    """A written note: onset and duration in ticks, MIDI pitch."""

    onset: int
    duration: int
    pitch: int
    role: Role


class Tone(NamedTuple):
    """A melody note with its staff position and chord."""

    onset: int
    duration: int
    staff: int
    chord: Chord

    @property
    def pitch(self) -> int:
        """MIDI pitch."""
        return self.chord.pitch(self.staff)


class Span(NamedTuple):
    """A chord and how long it lasts."""

    onset: int
    duration: int
    chord: Chord


class Phrase(NamedTuple):
    """Four bars (two in an introduction) that are played as one phrase.

    `level` is the velocity around which the phrase is played,
    `closing` how much its last beats broaden (0–1).
    """

    onset: int
    duration: int
    section: str
    texture: str
    level: float
    closing: float


@dataclass(frozen=True)
class Score:
    """A piece with an upbeat of `lead_in` ticks before tick 0 and `length` ticks after it."""

    title: str
    style: str
    metre: Metre
    key: Key
    tempo_bpm: float
    lead_in: int
    length: int
    notes: list[Note]
    melody: list[Tone]
    spans: list[Span]
    phrases: list[Phrase]
