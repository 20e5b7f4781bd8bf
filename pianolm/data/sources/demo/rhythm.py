"""Melodic rhythm: bars assembled from patterns of one or two beats."""

from pianolm.data.sources.demo.random_stream import RandomStream
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


def _beats_rhythm(beats: int, compound: bool, weights: tuple[float, ...], rng: RandomStream) -> Rhythm:
    """A rhythm of one or two beats."""
    if compound:
        halves = [rng.pick(rng.pick(_COMPOUND_BEAT, weights)) for _ in range(beats)]
        return tuple(length for half in halves for length in half)
    return rng.pick(rng.pick(_TWO_BEATS if beats == 2 else _ONE_BEAT, weights))


def bar_rhythm(metre: Metre, weights: tuple[float, ...], rng: RandomStream) -> Rhythm:
    """The rhythm of a bar; in a bar of three beats the pattern of two comes first in most cases."""
    if metre.beats == 3:
        if rng.chance(0.7):
            return _beats_rhythm(2, False, weights, rng) + _beats_rhythm(1, False, weights, rng)
        return _beats_rhythm(1, False, weights, rng) + _beats_rhythm(2, False, weights, rng)
    return tuple(
        length for _ in range(metre.beats // 2) for length in _beats_rhythm(2, metre.compound, weights, rng)
    )


def running_bar(metre: Metre, weights: tuple[float, ...], rng: RandomStream) -> Rhythm:
    """A bar of short notes before a cadence: of three rhythms the one with most notes."""
    return max((bar_rhythm(metre, weights, rng) for _ in range(3)), key=len)


def cadence_bar(metre: Metre, rng: RandomStream) -> Rhythm:
    """The last bar of a phrase; its last beat is a rest, or free for the next upbeat."""
    if metre.beats == 2:
        return (48, -48)
    rest = metre.bar - TICKS
    return rng.pick([(rest, -48), (48, rest - 48, -48), (rest - 48, -48, -48)])


def pickup_beat(metre: Metre, rng: RandomStream) -> Rhythm:
    """An upbeat of one beat."""
    if metre.compound:
        return rng.pick([(-32, 16), (16, 16, 16)])
    return rng.pick([(48,), (24, 24), (-24, 24), (36, 12)])
