"""The pattern codebook: three learned levels and an exhaustive fourth; cells to codes and back.

Shapes: C cells or distinct patterns, K codes of a level. A pattern of a level with F frames is two bit masks in
`uint64`, `sustain` and `onset`, bit f for frame f; F is 48, 24, 12 and 6 for L1 to L4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.cells import strike_after_silence
from pianolm.tokenizer.grammar import TieCodes
from pianolm.tokenizer.ties import frames_since_strike
from pianolm.tokenizer.vocabulary import CODE_KINDS, Vocabulary

LEVEL_FRAMES = (48, 24, 12, 6)
"""Frames of a pattern of L1, L2, L3, L4."""

_MIX_SUSTAIN, _MIX_ONSET = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SPARE_BITS = 3
"""A hash table has eight times as many buckets as patterns, so that few patterns share one."""
_CHUNK = 2048
"""Patterns compared with a whole level at a time, which bounds memory."""


class Patterns(NamedTuple):
    """Patterns of one level: `sustain` and `onset`, each [K] uint64."""

    sustain: NDArray[np.uint64]
    onset: NDArray[np.uint64]

    def part(self, index: int, frames: int) -> Patterns:
        """[K] parts of the patterns: `frames` frames from frame `index · frames` on."""
        shift, mask = np.uint64(index * frames), np.uint64((1 << frames) - 1)
        return Patterns((self.sustain >> shift) & mask, (self.onset >> shift) & mask)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Patterns:
        """The patterns at some rows."""
        return Patterns(self.sustain[rows], self.onset[rows])

    def keys(self) -> NDArray[np.uint64]:
        """[K] 64-bit hashes of both masks; their highest bits are the best mixed."""
        mixed = (self.sustain ^ (self.onset * _MIX_ONSET)) * _MIX_SUSTAIN
        return (mixed ^ (mixed >> np.uint64(32))) * _MIX_SUSTAIN


def eighth_patterns() -> Patterns:
    """All 377 patterns of six frames, the silent one first, ascending by (sustain, onset)."""
    masks = np.arange(64, dtype=np.uint64)
    sustain, onset = np.repeat(masks, 64), np.tile(masks, 64)
    legal = (onset & ~sustain == 0) & (strike_after_silence(sustain, onset) == onset)
    return Patterns(sustain[legal], onset[legal])


def join_patterns(first: Patterns, second: Patterns) -> Patterns:
    """[A + B] one list after the other."""
    return Patterns(
        np.concatenate([first.sustain, second.sustain]), np.concatenate([first.onset, second.onset])
    )


class Level:
    """Hash table with chaining over one level's patterns [K], which looks up many patterns at once."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        count = patterns.sustain.size
        self._shift = np.uint64(64 - max(count.bit_length() + _SPARE_BITS, 1))
        bucket = patterns.keys() >> self._shift
        order = np.argsort(bucket, kind="stable")
        same = bucket[order][1:] == bucket[order][:-1]
        self._next = np.full(count, -1, np.int64)
        self._next[order[:-1][same]] = order[1:][same]
        first = np.ones(count, bool)
        first[1:] = ~same
        self._first = np.full(1 << (64 - int(self._shift)), -1, np.int64)
        self._first[bucket[order[first]]] = order[first]

    def find(self, wanted: Patterns) -> NDArray[np.int64]:
        """[C] index of the code equal to each pattern, −1 where there is none."""
        index = self._first[wanted.keys() >> self._shift]
        if not self._next.size:
            return index
        unequal = self._unequal(index, wanted)
        while unequal.size:
            index[unequal] = self._next[index[unequal]]
            unequal = unequal[self._unequal(index[unequal], wanted.take(unequal))]
        return index

    def _unequal(self, index: NDArray[np.int64], wanted: Patterns) -> NDArray[np.int64]:
        """Rows with a code whose pattern differs from the wanted one."""
        sustain, onset = self.patterns
        return np.flatnonzero(
            (index >= 0) & ((sustain[index] != wanted.sustain) | (onset[index] != wanted.onset))
        )

    def nearest(self, wanted: Patterns) -> NDArray[np.int64]:
        """[C] index of the code that differs from each pattern in the fewest frames; the first of equally near ones.

        The silent code is never the nearest to a pattern that sounds.
        """
        index = np.empty(wanted.sustain.size, np.int64)
        silent_code = self.patterns.sustain == 0
        for low in range(0, wanted.sustain.size, _CHUNK):
            rows = slice(low, low + _CHUNK)
            part = Patterns(wanted.sustain[rows], wanted.onset[rows])
            frames = frame_distance(part, self.patterns)
            frames[(part.sustain != 0)[:, None] & silent_code] = 255
            index[rows] = frames.argmin(axis=1)
        return index


def frame_distance(a: Patterns, b: Patterns) -> NDArray[np.uint8]:
    """[A, B] number of frames in which patterns differ in sustain or onset."""
    differ = (a.sustain[:, None] ^ b.sustain) | (a.onset[:, None] ^ b.onset)
    return np.bitwise_count(differ)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Patterns of the learned levels for a vocabulary.

    Attributes:
        vocabulary: Gives the number of codes a level and their ids.
        levels: Patterns of L1, L2 and L3, one for every id of the level. L2 and L3 have one silent code each, L1 none.
    """

    vocabulary: Vocabulary
    levels: tuple[Patterns, Patterns, Patterns]

    def __post_init__(self) -> None:
        for number, (kind, patterns) in enumerate(zip(CODE_KINDS, self.levels, strict=False), 1):
            check_level(
                f"codebook L{number}", patterns, LEVEL_FRAMES[number - 1], self.vocabulary.count(kind)
            )

    @cached_property
    def all_levels(self) -> tuple[Patterns, ...]:
        """Patterns of L1 to L4."""
        return (*self.levels, eighth_patterns())

    @cached_property
    def _search(self) -> tuple[Level, ...]:
        return tuple(Level(patterns) for patterns in self.all_levels)

    @cached_property
    def _offsets(self) -> list[int]:
        """First id of each level."""
        return [self.vocabulary.offset(kind) for kind in CODE_KINDS]

    @cached_property
    def id_patterns(self) -> Patterns:
        """[V] pattern of every code id in its own frames; empty masks for ids that are no codes."""
        masks = np.zeros((2, self.vocabulary.size), np.uint64)
        for kind, patterns in zip(CODE_KINDS, self.all_levels, strict=True):
            masks[:, self.vocabulary.ids(kind)] = patterns
        return Patterns(masks[0], masks[1])

    @cached_property
    def silent_ids(self) -> NDArray[np.bool_]:
        """[V] whether an id is a silent code."""
        is_code = np.isin(self.vocabulary.kind_of, [int(kind) for kind in CODE_KINDS])
        return is_code & (self.id_patterns.sustain == 0)

    @cached_property
    def strikes_per_id(self) -> NDArray[np.int64]:
        """[V] notes that each id strikes; 0 for ids that are no codes."""
        return np.bitwise_count(self.id_patterns.onset).astype(np.int64)

    @cached_property
    def tie_codes(self) -> TieCodes:
        """What ties need to know about codes. Sound that follows silence within a code counts as struck."""
        sounds_to_end = np.zeros(self.vocabulary.size, bool)
        since_strike = np.full(self.vocabulary.size, -1)
        for kind, patterns, frames in zip(CODE_KINDS, self.all_levels, LEVEL_FRAMES, strict=True):
            ids = self.vocabulary.ids(kind)
            sounds_to_end[ids] = patterns.sustain >> np.uint64(frames - 1) != 0
            since_strike[ids] = frames_since_strike(strike_after_silence(*patterns), frames)
        return TieCodes(self.strikes_per_id > 0, sounds_to_end, since_strike)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all patterns."""
        digest = hashlib.sha256()
        for patterns in self.levels:
            digest.update(patterns.sustain.astype("<u8").tobytes() + patterns.onset.astype("<u8").tobytes())
        return digest.hexdigest()[:16]

    def encode(
        self, sustain: NDArray[np.uint64], onset: NDArray[np.uint64], exact: bool = True
    ) -> NDArray[np.int32]:
        """Patterns [C] to code ids [C, 8]: an id stands at the eighth where its part begins, −1 elsewhere.

        Takes the coarsest level that has the pattern of a part. For a quarter that L3 lacks it takes two L4 codes, or,
        with `exact=False`, the nearest L3 code.
        """
        ids = np.full((sustain.size, 8), -1, np.int32)
        rows, eighth = np.arange(sustain.size), np.zeros(sustain.size, np.int64)
        wanted = Patterns(sustain, onset)
        for depth in range(len(CODE_KINDS)):
            code = self._search[depth].find(wanted)
            if depth == len(CODE_KINDS) - 2 and not exact:
                self._take_nearest(depth, wanted, code)
            found = code >= 0
            ids[rows[found], eighth[found]] = code[found] + self._offsets[depth]
            left = ~found
            if not left.any():
                break
            frames, step = LEVEL_FRAMES[depth + 1], LEVEL_FRAMES[depth + 1] // LEVEL_FRAMES[3]
            rest = wanted.take(left)
            wanted = join_patterns(rest.part(0, frames), rest.part(1, frames))
            rows = np.concatenate([rows[left], rows[left]])
            eighth = np.concatenate([eighth[left], eighth[left] + step])
        return ids

    def _take_nearest(self, depth: int, wanted: Patterns, code: NDArray[np.int64]) -> None:
        """Puts the nearest code of a level in the place of every −1 in `code` [C]."""
        missing = np.flatnonzero(code < 0)
        if missing.size:
            distinct, inverse = unique_patterns(wanted.take(missing))
            code[missing] = self._search[depth].nearest(distinct)[inverse]

    def decode(self, ids: NDArray[np.integer]) -> Patterns:
        """Code ids [C, 8] in the layout of `encode` to patterns [C], in which sound that follows silence is struck."""
        first = Patterns(
            *(np.where(ids[:, 0] >= 0, masks[ids[:, 0]], np.uint64(0)) for masks in self.id_patterns)
        )
        rows = np.flatnonzero(ids[:, 1:].max(axis=1, initial=-1) >= 0)  # the few cells of several codes
        part = ids[rows, 1:]
        shift = np.arange(1, 8, dtype=np.uint64) * np.uint64(6)
        for mask, masks in zip(first, self.id_patterns, strict=True):
            rest = np.where(part >= 0, masks[part] << shift, np.uint64(0))
            mask[rows] |= np.bitwise_or.reduce(rest, axis=1)
        return Patterns(first.sustain, strike_after_silence(first.sustain, first.onset))


def check_level(name: str, patterns: Patterns, frames: int, count: int) -> None:
    """Checks the rules of one level of a codebook, on which the tokenizer relies.

    Raises:
        UserError: A wrong number of codes, a mask that is too wide, an onset outside sustain, a repeated pattern, or a
            wrong number of silent codes: L1 has none, other levels one.
    """
    sustain, onset = patterns
    if sustain.shape != (count,) or onset.shape != (count,):
        raise UserError(
            f"{name}: {sustain.size} codes found, the vocabulary has {count}; set tokenizer.vocabulary to match"
        )
    if (sustain >> np.uint64(frames)).any():
        raise UserError(
            f"{name}: a pattern is longer than {frames} frames; masks hold bit f for frame f, 48 frames a beat"
        )
    if (onset & ~sustain).any():
        raise UserError(f"{name}: a pattern has an onset outside its sustain; expected onsets within sustain")
    if unique_patterns(patterns)[0].sustain.size != count:
        raise UserError(f"{name}: a pattern occurs twice; every code needs a pattern of its own")
    silent = int((sustain == 0).sum())
    expected = 0 if frames == LEVEL_FRAMES[0] else 1
    if silent != expected:
        raise UserError(f"{name}: {silent} all-silent code(s) found, expected {expected}")


def unique_patterns(patterns: Patterns) -> tuple[Patterns, NDArray[np.int64]]:
    """Distinct patterns, ascending by (sustain, onset), and [C] the index among them of each row."""
    order = np.lexsort((patterns.onset, patterns.sustain))
    ordered = patterns.take(order)
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(ordered.sustain) != 0) | (np.diff(ordered.onset) != 0)
    inverse = np.empty(order.size, np.int64)
    inverse[order] = np.cumsum(new) - 1
    return ordered.take(new), inverse
