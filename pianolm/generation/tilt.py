"""Tilting: how pieces become as loud and as dense as they are asked to be, whatever the model has learned of it.

The probability p(x) of a token becomes p(x) · exp(λ · f(x)), normalised. Of all distributions with the same mean of f,
this one is nearest to p in relative entropy.

* Loudness: f is the mean velocity that a velocity code says, given the pattern of its cell. λ moves the mean of f by
  the difference between the level and what the model by itself expected of the last notes, so that accents stay.
* Density: f counts notes: one for a pitch, in place of the next beat or the end, and a part of those that a code
  strikes. λ follows the logarithm of the level over the density of the last beats.

Both pull the less, the nearer the music is to its level; music that has come there goes on by itself.

Shapes: R ids in a range of the token order, V ids, K velocity codes, S segments of a cell.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.sampling import Array, Candidates, TokenOrder
from pianolm.music.beats import FRAMES
from pianolm.music.cells import segment_starts
from pianolm.tokenizer.controls import DENSITY_CENTRES, LOUDNESS_CENTRES
from pianolm.tokenizer.sequence import codes_behind
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind

LAST_CODES = 12
"""Velocity codes whose mean tells how loud the model would go on."""
STEEPEST = 1.0
"""Largest λ of loudness, per MIDI unit."""
LAST_BEATS = 4
"""Beats whose density is compared with the level, with the one that has begun."""
OWN_DENSITY = 4.0
"""Notes a beat that are taken for the model's own where nothing has been played."""
LEAST_DENSITY = 0.5
"""Density that beats without notes are taken for."""
STRENGTH = 3.0
"""λ where the level is e times the density of the last beats. At 1 levels hardly differ (`experiments/controls`)."""
CODE_SHARE, MOST_STRIKES = 0.25, 2
"""Weight of a note that a code strikes, relative to that of a pitch, and how many count: else trills take over."""

_BIT = np.uint64(1) << np.arange(FRAMES, dtype=np.uint64)
_IS_CODE = frozenset(map(int, CODE_KINDS))
_TEMPO = int(Kind.TEMPO)


class NoteFeatures:
    """What the ids of a tokenizer say about loudness and density.

    Args:
        tokenizer: Of the model.
        order: The order of the ids in which logits are given.

    Attributes:
        kinds: Kind of each id.
        strikes: Notes that each id strikes.
        notes_V: [V] f of density, in this order.
        velocity_of: [K] f of loudness, for the codes of a cell.
        first_velocity: First index of the velocity codes in this order.
    """

    def __init__(self, tokenizer: PianoTokenizer, order: TokenOrder) -> None:
        kind_of, strikes_V = tokenizer.vocabulary.kind_of, tokenizer.strikes_per_id
        self.kinds: list[int] = kind_of.tolist()
        self.strikes: list[int] = strikes_V.tolist()
        notes_V = np.where(kind_of == Kind.PITCH, 1, CODE_SHARE * np.minimum(strikes_V, MOST_STRIKES))
        self.notes_V = notes_V[order.ids].astype(np.float32)
        self.first_velocity = order.range_of((Kind.VELOCITY,))[0]
        self._tokenizer = tokenizer
        self.velocity_of: Callable[[tuple[int, ...]], NDArray[np.float64]] = lru_cache(maxsize=4096)(
            self._velocity_of
        )

    def _velocity_of(self, codes: tuple[int, ...]) -> NDArray[np.float64]:
        """[K] mean velocity of the notes that a cell with these codes strikes; of what it holds, if it strikes none."""
        codec, ids = self._tokenizer.codec, np.array([0, *codes])
        assert codec is not None, "a tokenizer with velocities"
        kinds = self._tokenizer.vocabulary.kind_of[ids].astype(np.int8)
        sustain, onset = self._tokenizer.codebook.decode(codes_behind(ids, kinds, np.zeros(1, np.int64)))
        count = codec.codebook_size
        velocity_KS = codec.decode(np.arange(count), np.repeat(sustain, count), np.repeat(onset, count))
        velocity_KS = velocity_KS.reshape(count, -1)
        is_struck_S = (onset & _BIT != 0)[segment_starts(sustain, onset) & _BIT != 0]
        mean_K: NDArray[np.float64] = velocity_KS[:, is_struck_S | ~is_struck_S.any()].mean(axis=1)
        return mean_K

    def open_cell(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The codes at the end of a sequence."""
        first = len(ids)
        while first and self.kinds[ids[first - 1]] in _IS_CODE:
            first -= 1
        return tuple(ids[first:])


class LoudnessTilt:
    """Tilts the velocity codes of one piece.

    Args:
        features: Of the ids.
    """

    def __init__(self, features: NoteFeatures) -> None:
        self._features = features
        self._expected = deque[float](maxlen=LAST_CODES)

    def tilt(self, logits_R: Array, candidates: Candidates, ids: Sequence[int], level: int) -> None:
        """Changes the logits of velocity codes in place.

        Args:
            logits_R: Of the indices `candidates.low` to `candidates.high` of the token order.
            candidates: The ids that may come, all of them velocity codes.
            ids: The piece so far.
            level: Of its loudness, 1 to 8.
        """
        velocity_K = self._features.velocity_of(self._features.open_cell(ids))
        first = candidates.low - self._features.first_velocity
        velocity_R = velocity_K[np.minimum(np.arange(first, first + logits_R.size), velocity_K.size - 1)]
        log_R = logits_R.astype(np.float64)
        expected = _tilted_mean(log_R, velocity_R, 0.0)
        self._expected.append(expected)
        louder = LOUDNESS_CENTRES[level - 1] - sum(self._expected) / len(self._expected)
        slope = _slope(log_R, velocity_R, expected + louder)
        logits_R += (slope * (velocity_R - expected)).astype(np.float32)


class DensityTilt:
    """Tilts pitches against the next beat, and patterns, of one piece.

    Args:
        features: Of the ids.
        prompt: Tokens that the piece begins with.
    """

    def __init__(self, features: NoteFeatures, prompt: Sequence[int]) -> None:
        self._features = features
        self._notes = deque([OWN_DENSITY] * LAST_BEATS, LAST_BEATS)
        for token in prompt:
            self.read(token)

    def read(self, token: int) -> None:
        """Reads the next token of the piece."""
        if self._features.kinds[token] == _TEMPO:
            self._notes.append(0)
        self._notes[-1] += self._features.strikes[token]

    def tilt(self, logits_R: Array, candidates: Candidates, level: int) -> None:
        """Changes logits in place; see `LoudnessTilt.tilt`."""
        played = max(sum(self._notes) / LAST_BEATS, LEAST_DENSITY)
        slope = np.float32(STRENGTH * math.log(DENSITY_CENTRES[level - 1] / played))
        logits_R += slope * self._features.notes_V[candidates.low : candidates.high]


def _tilted_mean(log_R: NDArray[np.float64], value_R: NDArray[np.float64], slope: float) -> float:
    """Mean of a value where its logits are tilted."""
    tilted_R = log_R + slope * value_R
    weight_R = np.exp(tilted_R - tilted_R.max())
    return float(weight_R @ value_R / weight_R.sum())


def _slope(log_R: NDArray[np.float64], value_R: NDArray[np.float64], wanted: float) -> float:
    """λ at which the mean of a value is as wanted, as far as bounds allow; found by halving intervals."""
    low, high = -STEEPEST, STEEPEST
    for _ in range(16):
        middle = (low + high) / 2
        is_less = _tilted_mean(log_R, value_R, middle) < wanted
        low, high = (middle, high) if is_less else (low, middle)
    return (low + high) / 2
