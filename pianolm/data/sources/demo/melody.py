"""Melody as a shortest path: the line that best balances motif, contour and counterpoint.

Every note chooses among the staff positions of a range (S of them). A dynamic programme minimises the sum of
what a position costs (chord tones on strong beats, contour, cadence goals) and what a step from one note to
the next costs (leaps, unprepared dissonance, parallels with the bass, tendency tones, departure from the
motif).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources.demo.dice import Dice
from pianolm.data.sources.demo.theory import Chord

Costs = NDArray[np.float64]

# By size of the interval in staff steps: steps flow, thirds are easy, sevenths and ninths are not sung.
_LEAP = np.array([1.6, 0.0, 0.6, 1.4, 2.2, 3.5, 9.0, 5.0])


@dataclass
class Slot:
    """A melody note that has its place in time but no pitch yet.

    Attributes:
        onset, duration: ticks.
        strength: metric weight, 0–1.
        bass: sounding bass, MIDI pitch.
        aim: staff position the contour suggests, pulled at with weight `pull`.
        want: interval in staff steps to the next note that the motif suggests.
        goals: scale degrees allowed (cadences); empty for all.
        lean: whether an accented dissonance, resolving down by step, is welcome here.
    """

    onset: int
    duration: int
    chord: Chord
    strength: float
    bass: int
    aim: float
    pull: float = 0.06
    want: float | None = None
    goals: tuple[int, ...] = field(default=())
    lean: bool = False


def _members(slot: Slot, staff: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which staff positions are chord tones, [S]."""
    return np.isin((staff - slot.chord.key.letter) % 7, slot.chord.degrees)


def _pitches(slot: Slot, staff: NDArray[np.int64]) -> NDArray[np.int64]:
    """MIDI pitches of staff positions, [S]."""
    return np.array([slot.chord.pitch(int(position)) for position in staff])


def _place_costs(
    slot: Slot, staff: NDArray[np.int64], limits: tuple[int, int], member: NDArray[np.bool_]
) -> Costs:
    """Cost of every staff position for one slot, [S]."""
    costs = slot.pull * (staff - slot.aim) ** 2
    costs += np.where(member, 1.5 * slot.lean, (1.0 if slot.lean else 0.3 + 9.0 * slot.strength))
    if slot.goals:
        costs += 40.0 * ~np.isin((staff - slot.chord.key.letter) % 7, slot.goals)
    pitch = _pitches(slot, staff)
    costs += 50.0 * ((pitch < limits[0]) | (pitch > limits[1]))
    # Over a dominant the leading tone already in the bass is not doubled.
    leading = (
        slot.chord.function in "DS" and (slot.bass - slot.chord.pitch_class(slot.chord.degrees[0])) % 12 == 4
    )
    return costs + 4.0 * leading * ((pitch - slot.bass) % 12 == 0)


def _step_costs(a: Slot, b: Slot, staff: NDArray[np.int64], members: tuple[NDArray[np.bool_], ...]) -> Costs:
    """Cost of going from each position at `a` (rows) to each at `b` (columns), [S, S]."""
    interval = staff[None, :] - staff[:, None]
    size = np.abs(interval)
    costs = _LEAP[np.minimum(size, 7)] + 4.0 * (size > 7)
    foreign_a, foreign_b = ~members[0][:, None], ~members[1][None, :]
    if a.lean:
        costs += 7.0 * (foreign_a & (interval != -1))
    else:
        costs += 8.0 * (foreign_a & (size != 1))
    if not b.lean:
        costs += 5.0 * (foreign_b & (size > 1))
    if a.want is not None:
        costs += 1.2 * np.minimum((interval - a.want) ** 2, 9.0)
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


def trace(
    slots: list[Slot], limits: tuple[int, int], before: int | None, heat: float, dice: Dice
) -> list[int]:
    """Find the best line through the slots.

    Args:
        slots: at least one, in time order.
        limits: lowest and highest MIDI pitch.
        before: staff position just sung, or None.
        heat: size of the random part of the costs; 0 gives the one best line.
        dice: source of the random part.

    Returns:
        A staff position for every slot.
    """
    low, high = (pitch * 7 // 12 - 7 for pitch in limits)
    staff = np.arange(low - 1, high + 3)
    members = [_members(slot, staff) for slot in slots]
    places = [_place_costs(slot, staff, limits, member) for slot, member in zip(slots, members, strict=True)]
    noise = heat * dice.uniform(len(slots) * len(staff)).reshape(len(slots), len(staff))
    total = places[0] + noise[0]
    if before is not None:
        size = np.abs(staff - before)
        total = total + 0.7 * _LEAP[np.minimum(size, 7)] + np.maximum(size - 5, 0)
    choices = []
    for index in range(1, len(slots)):
        steps = _step_costs(slots[index - 1], slots[index], staff, (members[index - 1], members[index]))
        through = total[:, None] + steps
        choice = through.argmin(axis=0)
        choices.append(choice)
        total = through[choice, np.arange(len(staff))] + places[index] + noise[index]
    path = [int(total.argmin())]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return [int(staff[position]) for position in reversed(path)]
