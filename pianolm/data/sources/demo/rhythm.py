"""Melodic rhythm: bars put together from small cells, a few of which a section keeps returning to."""

from pianolm.data.sources.demo.dice import Dice
from pianolm.data.sources.demo.theory import TICKS, Metre

Rhythm = tuple[int, ...]

# Durations in ticks (a beat is 48), rests negative; by character: calm, moving, running, syncopated.
_TWO_BEATS: tuple[tuple[Rhythm, ...], ...] = (
    ((96,), (72, 24), (48, 48), (48, 48), (72, 24)),
    ((48, 24, 24), (24, 24, 48), (36, 12, 48), (72, 12, 12), (48, 36, 12)),
    (
        (24, 24, 24, 24),
        (-24, 24, 24, 24),
        (24, 12, 12, 24, 24),
        (12, 12, 24, 48),
        (12, 12, 12, 12, 48),
        (16, 16, 16, 48),
        (36, 12, 36, 12),
    ),
    ((12, 24, 12, 48), (12, 24, 12, 24, 24), (24, 48, 24), (-12, 12, 12, 24, 12, 24), (24, 24, 12, 24, 12)),
)
_ONE_BEAT: tuple[tuple[Rhythm, ...], ...] = (
    ((48,),),
    ((24, 24), (36, 12)),
    ((12, 12, 12, 12), (24, 12, 12), (16, 16, 16)),
    ((12, 24, 12), (24, 24)),
)
_COMPOUND_BEAT: tuple[tuple[Rhythm, ...], ...] = (
    ((48,), (32, 16)),
    ((16, 16, 16), (32, 16), (24, 8, 16)),
    ((16, 8, 8, 8, 8), (16, 16, 8, 8), (8, 8, 16, 16)),
    ((16, 32),),
)


def _cell(beats: int, compound: bool, weights: tuple[float, ...], dice: Dice) -> Rhythm:
    """Draw a rhythm of one or two beats."""
    if compound:
        halves = [dice.pick(dice.pick(_COMPOUND_BEAT, weights)) for _ in range(beats)]
        return tuple(length for half in halves for length in half)
    return dice.pick(dice.pick(_TWO_BEATS if beats == 2 else _ONE_BEAT, weights))


def bar_rhythm(metre: Metre, weights: tuple[float, ...], dice: Dice) -> Rhythm:
    """Draw a bar; its heavier beats come first."""
    if metre.beats == 3:
        if dice.chance(0.7):
            return _cell(2, False, weights, dice) + _cell(1, False, weights, dice)
        return _cell(1, False, weights, dice) + _cell(2, False, weights, dice)
    return tuple(
        length for _ in range(metre.beats // 2) for length in _cell(2, metre.compound, weights, dice)
    )


def running_bar(metre: Metre, weights: tuple[float, ...], dice: Dice) -> Rhythm:
    """Draw the livelier bar that drives towards a cadence: the busiest of three."""
    return max((bar_rhythm(metre, weights, dice) for _ in range(3)), key=len)


def cadence_bar(metre: Metre, dice: Dice) -> Rhythm:
    """Draw the bar a phrase comes to rest in; its last beat is free to breathe in, or for the next upbeat."""
    if metre.beats == 2:
        return (48, -48)
    rest = metre.bar - TICKS
    return dice.pick([(rest, -48), (48, rest - 48, -48), (rest - 48, -48, -48)])


def pickup_beat(metre: Metre, dice: Dice) -> Rhythm:
    """Draw the upbeat, one beat long."""
    if metre.compound:
        return dice.pick([(-32, 16), (16, 16, 16)])
    return dice.pick([(48,), (24, 24), (-24, 24), (36, 12)])
