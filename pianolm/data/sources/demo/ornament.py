"""Varies a melody when it returns: passing notes, neighbours, turns and grace notes between its notes."""

from itertools import pairwise

from pianolm.data.sources.demo.random_stream import RandomStream
from pianolm.data.sources.demo.score import Tone

_HALVES = {96: (48, 48), 72: (48, 24), 48: (24, 24), 24: (12, 12), 32: (16, 16), 64: (32, 32)}
_COMPOUND_HALVES = _HALVES | {48: (32, 16), 24: (16, 8)}


def _figure(tone: Tone, following: Tone, compound: bool, rng: RandomStream) -> list[Tone]:
    """Replaces a tone by a figure that starts on it and leads to the next tone."""
    gap = following.staff - tone.staff
    lengths: tuple[int, ...]
    moves: tuple[int, ...]
    halves = (_COMPOUND_HALVES if compound else _HALVES).get(tone.duration)
    if tone.duration == 96 and not compound and rng.chance(0.5):
        lengths, moves = (48, 12, 12, 12, 12), (0, 1, 0, -1, 0)
    elif tone.duration == 48 and compound and abs(gap) <= 1:
        lengths, moves = (16, 16, 16), (0, 1, 0)
    elif halves and abs(gap) == 2:
        lengths, moves = halves, (0, gap // 2)
    elif halves and abs(gap) == 1 and tone.duration >= 32:
        lengths, moves = halves, (0, -gap if rng.chance(0.5) else 2 * gap)
    elif halves and gap == 0 and tone.duration >= 24:
        lengths, moves = halves, (0, rng.pick([1, -1]))
    else:
        return [tone]
    onset, tones = tone.onset, []
    for length, move in zip(lengths, moves, strict=True):
        tones.append(Tone(onset, length, tone.staff + move, tone.chord))
        onset += length
    return tones


def ornament(tones: list[Tone], amount: float, compound: bool, rng: RandomStream) -> list[Tone]:
    """Adds ornaments to a melody.

    Args:
        tones: the plain melody, in time order.
        amount: chance that a tone is varied.
        compound: whether beats divide by three.
        rng: source of the choices.

    Returns:
        The varied melody. Every tone of the plain one keeps its onset and pitch.
    """
    varied: list[Tone] = []
    for tone, following in pairwise(tones):
        connected = tone.onset + tone.duration == following.onset and tone.chord.key == following.chord.key
        if connected and rng.chance(amount):
            varied += _figure(tone, following, compound, rng)
        else:
            varied.append(tone)
    varied += tones[-1:]
    return _with_graces(varied, 0.2 * amount, rng)


def _with_graces(tones: list[Tone], chance: float, rng: RandomStream) -> list[Tone]:
    """Puts a short upper neighbour before some longer tones; the preceding tone ends earlier for it."""
    graced: list[Tone] = []
    for tone in tones:
        if graced and tone.duration >= 48 and graced[-1].duration >= 24 and rng.chance(chance):
            end = min(graced[-1].onset + graced[-1].duration, tone.onset - 4)
            graced[-1] = graced[-1]._replace(duration=end - graced[-1].onset)
            if graced[-1].pitch != tone.chord.pitch(tone.staff + 1):
                graced.append(Tone(tone.onset - 4, 4, tone.staff + 1, tone.chord))
        graced.append(tone)
    return graced
