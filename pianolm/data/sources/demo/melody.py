"""Finds a melody as the shortest path through the possible pitches of its notes.

Each note takes one of the S staff positions of a range. A dynamic programme minimises the sum of the costs of the
positions (chord tones on strong beats, contour, cadences) and of the steps between neighbours (leaps, unprepared
dissonance, parallels with the bass, tendency tones, departure from the motif).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.theory import Chord

Costs = NDArray[np.float64]

# Cost by size of the interval in staff steps, from a repeated note to an octave and more.
_LEAP = np.array([1.6, 0.0, 0.6, 1.4, 2.2, 3.5, 9.0, 5.0])


@dataclass
class UnpitchedNote:
    """A melody note whose onset and duration are known and whose pitch is to be found.

    Attributes:
        onset, duration: ticks.
        chord: chord that sounds under the note.
        strength: metric weight, 0–1.
        bass: sounding bass, MIDI pitch.
        target: staff position that the contour suggests.
        target_weight: cost of the squared distance from `target`.
        next_interval: interval in staff steps to the next note that the motif suggests, None for any.
        allowed_degrees: scale degrees allowed (cadences); empty for all.
        appoggiatura: whether an accented dissonance that resolves down by step is preferred here.
    """

    onset: int
    duration: int
    chord: Chord
    strength: float
    bass: int
    target: float
    target_weight: float = 0.06
    next_interval: float | None = None
    allowed_degrees: tuple[int, ...] = field(default=())
    appoggiatura: bool = False


def _members(note: UnpitchedNote, staff: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[S] whether each staff position is a chord tone."""
    return np.isin((staff - note.chord.key.letter) % 7, note.chord.degrees)


def _pitches(note: UnpitchedNote, staff: NDArray[np.int64]) -> NDArray[np.int64]:
    """[S] MIDI pitches of the staff positions."""
    return np.array([note.chord.pitch(int(position)) for position in staff])


def _place_costs(
    note: UnpitchedNote, staff: NDArray[np.int64], limits: tuple[int, int], member: NDArray[np.bool_]
) -> Costs:
    """[S] cost of every staff position for one note."""
    costs = note.target_weight * (staff - note.target) ** 2
    costs += np.where(
        member, 1.5 * note.appoggiatura, (1.0 if note.appoggiatura else 0.3 + 9.0 * note.strength)
    )
    if note.allowed_degrees:
        costs += 40.0 * ~np.isin((staff - note.chord.key.letter) % 7, note.allowed_degrees)
    pitch = _pitches(note, staff)
    costs += 50.0 * ((pitch < limits[0]) | (pitch > limits[1]))
    # Over a dominant the leading tone already in the bass is not doubled.
    leading = (
        note.chord.function in "DS" and (note.bass - note.chord.pitch_class(note.chord.degrees[0])) % 12 == 4
    )
    return costs + 4.0 * leading * ((pitch - note.bass) % 12 == 0)


def _step_costs(
    a: UnpitchedNote, b: UnpitchedNote, staff: NDArray[np.int64], members: tuple[NDArray[np.bool_], ...]
) -> Costs:
    """[S, S] cost of going from each position at note `a` (rows) to each at note `b` (columns)."""
    interval = staff[None, :] - staff[:, None]
    size = np.abs(interval)
    costs = _LEAP[np.minimum(size, 7)] + 4.0 * (size > 7)
    foreign_a, foreign_b = ~members[0][:, None], ~members[1][None, :]
    if a.appoggiatura:
        costs += 7.0 * (foreign_a & (interval != -1))
    else:
        costs += 8.0 * (foreign_a & (size != 1))
    if not b.appoggiatura:
        costs += 5.0 * (foreign_b & (size > 1))
    if a.next_interval is not None:
        costs += 1.2 * np.minimum((interval - a.next_interval) ** 2, 9.0)
    pitch_a, pitch_b = _pitches(a, staff), _pitches(b, staff)
    if a.bass != b.bass:
        for perfect in (0, 7):
            parallel = ((pitch_a - a.bass) % 12 == perfect)[:, None] & ((pitch_b - b.bass) % 12 == perfect)[
                None, :
            ]
            costs += 4.0 * (parallel & (size > 0))
    sounding = pitch_b[None, :] - pitch_a[:, None]
    costs += 6.0 * ((np.abs(sounding) == 6) & (size > 1)) + 9.0 * ((np.abs(sounding) == 3) & (size == 1))
    if a.chord != b.chord and a.chord.function in "DS":
        degree = (staff - a.chord.key.letter) % 7
        if len(a.chord.degrees) == 4:
            costs += 3.0 * ((degree == a.chord.degrees[3])[:, None] & (interval != -1))
        costs += 2.0 * ((degree == a.chord.degrees[1])[:, None] & (interval != 1) & (size > 0))
    return costs


def find_line(
    notes: list[UnpitchedNote],
    limits: tuple[int, int],
    before: int | None,
    randomness: float,
    rng: RandomStream,
) -> list[int]:
    """Finds the cheapest line through the notes.

    Args:
        notes: at least one, in time order.
        limits: lowest and highest MIDI pitch.
        before: staff position of the preceding note, or None.
        randomness: largest random cost added to a position; 0 gives the cheapest line.
        rng: source of the random part.

    Returns:
        A staff position for every note.
    """
    low, high = (pitch * 7 // 12 - 7 for pitch in limits)
    staff = np.arange(low - 1, high + 3)
    members = [_members(note, staff) for note in notes]
    places = [_place_costs(note, staff, limits, member) for note, member in zip(notes, members, strict=True)]
    noise = randomness * rng.uniform(len(notes) * len(staff)).reshape(len(notes), len(staff))
    total = places[0] + noise[0]
    if before is not None:
        size = np.abs(staff - before)
        total = total + 0.7 * _LEAP[np.minimum(size, 7)] + np.maximum(size - 5, 0)
    choices = []
    for index in range(1, len(notes)):
        steps = _step_costs(notes[index - 1], notes[index], staff, (members[index - 1], members[index]))
        through = total[:, None] + steps
        choice = through.argmin(axis=0)
        choices.append(choice)
        total = through[choice, np.arange(len(staff))] + places[index] + noise[index]
    path = [int(total.argmin())]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return [int(staff[position]) for position in reversed(path)]
