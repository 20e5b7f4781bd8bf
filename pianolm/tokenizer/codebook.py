"""The pattern codebook: three learned levels and the exhaustive fourth, and exact encoding with them.

Shapes: C cells or distinct patterns, K codes of a level. A pattern of a level with F frames is two bit masks in
`uint64`, `sustain` and `onset`, bit f for frame f; F is 48, 24, 12 and 6 for L1 to L4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.cells import strike_after_silence
from pianolm.tokenizer.vocabulary import CODE_KINDS, Vocabulary

LEVEL_FRAMES = (48, 24, 12, 6)
"""Frames of a pattern of L1, L2, L3, L4."""

FORMAT_VERSION = 1
_MIX_SUSTAIN, _MIX_ONSET = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SPARE_BITS = 3
"""A hash table has eight times as many places as patterns, so that few share one."""
_CHUNK = 2048


class Patterns(NamedTuple):
    """Patterns of one level: `sustain` and `onset`, each [K] uint64."""

    sustain: NDArray[np.uint64]
    onset: NDArray[np.uint64]

    def part(self, index: int, frames: int) -> Patterns:
        """[K] the frames from `index · frames` on, `frames` of them."""
        shift, mask = np.uint64(index * frames), np.uint64((1 << frames) - 1)
        return Patterns((self.sustain >> shift) & mask, (self.onset >> shift) & mask)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Patterns:
        """The patterns at some rows."""
        return Patterns(self.sustain[rows], self.onset[rows])

    def keys(self) -> NDArray[np.uint64]:
        """[K] 64-bit mixes of the two masks, the highest bits mixed best; equality is checked on the masks."""
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
    """Search structure of one level's patterns [K]: a hash table with chains, read by many patterns at once."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns
        count = patterns.sustain.size
        self._shift = np.uint64(64 - max(count.bit_length() + _SPARE_BITS, 1))
        slot = patterns.keys() >> self._shift
        order = np.argsort(slot, kind="stable")
        same = slot[order][1:] == slot[order][:-1]
        self._next = np.full(count, -1, np.int64)
        self._next[order[:-1][same]] = order[1:][same]
        first = np.ones(count, bool)
        first[1:] = ~same
        self._first = np.full(1 << (64 - int(self._shift)), -1, np.int64)
        self._first[slot[order[first]]] = order[first]

    def find(self, wanted: Patterns) -> NDArray[np.int64]:
        """[C] index of the equal code, −1 where there is none."""
        index = self._first[wanted.keys() >> self._shift]
        if not self._next.size:
            return index
        other = self._differs(index, wanted)
        while other.size:
            index[other] = self._next[index[other]]
            other = other[self._differs(index[other], wanted.take(other))]
        return index

    def _differs(self, index: NDArray[np.int64], wanted: Patterns) -> NDArray[np.int64]:
        """Rows whose code, if there is one, is another pattern."""
        sustain, onset = self.patterns
        return np.flatnonzero(
            (index >= 0) & ((sustain[index] != wanted.sustain) | (onset[index] != wanted.onset))
        )

    def nearest(self, wanted: Patterns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[C] index of the code that differs in the fewest frames, and in how many; the first among equals.

        A pattern that sounds never takes the silent code.
        """
        index, distance = np.empty(wanted.sustain.size, np.int64), np.empty(wanted.sustain.size, np.int64)
        silent_code = self.patterns.sustain == 0
        for low in range(0, wanted.sustain.size, _CHUNK):
            rows = slice(low, low + _CHUNK)
            frames = frame_distance(wanted.take(np.arange(wanted.sustain.size)[rows]), self.patterns)
            frames[(wanted.sustain[rows] != 0)[:, None] & silent_code] = 255
            index[rows] = frames.argmin(axis=1)
            distance[rows] = frames.min(axis=1)
        return index, distance


def frames_since_strike(onset: NDArray[np.uint64], frames: int) -> NDArray[np.int64]:
    """[K] from the last strike of onset masks [K] of so many frames to their end, −1 where there is none."""
    length = np.frexp(onset.astype(np.float64))[1]  # of the mask in bits; 48 bits are exact
    return np.where(onset > 0, frames + 1 - length, -1).astype(np.int64)


def frame_distance(a: Patterns, b: Patterns) -> NDArray[np.uint8]:
    """[A, B] number of frames in which patterns differ in sustain or onset."""
    differ = (a.sustain[:, None] ^ b.sustain) | (a.onset[:, None] ^ b.onset)
    return np.bitwise_count(differ)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Patterns of the learned levels for a vocabulary.

    Attributes:
        vocabulary: Gives the number of codes a level and their ids.
        levels: Patterns of L1, L2 and L3, as many as the vocabulary has ids. L2 and L3 own a silent code, L1 none.
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
        """[V] whether an id is a code of silence."""
        is_code = np.isin(self.vocabulary.kind_of, [int(kind) for kind in CODE_KINDS])
        return is_code & (self.id_patterns.sustain == 0)

    @cached_property
    def ringing_ids(self) -> NDArray[np.bool_]:
        """[V] whether an id is a code that sounds in the last of its frames."""
        rings = np.zeros(self.vocabulary.size, bool)
        for kind, patterns, frames in zip(CODE_KINDS, self.all_levels, LEVEL_FRAMES, strict=True):
            rings[self.vocabulary.ids(kind)] = patterns.sustain >> np.uint64(frames - 1) != 0
        return rings

    @cached_property
    def since_strike(self) -> NDArray[np.int64]:
        """[V] frames from the last strike of a code to its end, −1 where it strikes nothing or is no code.

        What begins held counts as struck before, what follows silence within the code as struck there.
        """
        since = np.full(self.vocabulary.size, -1)
        for kind, patterns, frames in zip(CODE_KINDS, self.all_levels, LEVEL_FRAMES, strict=True):
            since[self.vocabulary.ids(kind)] = frames_since_strike(
                strike_after_silence(patterns.sustain, patterns.onset), frames
            )
        return since

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all patterns."""
        digest = hashlib.sha256()
        for patterns in self.levels:
            digest.update(patterns.sustain.astype("<u8").tobytes() + patterns.onset.astype("<u8").tobytes())
        return digest.hexdigest()[:16]

    def encode(
        self, sustain: NDArray[np.uint64], onset: NDArray[np.uint64], exact: bool = True, tolerance: int = 0
    ) -> NDArray[np.int32]:
        """Patterns [C] to code ids [C, 8]: the id stands at the eighth where its part begins, −1 elsewhere.

        Takes the coarsest level that holds the part (within `tolerance` frames that differ). Where L3 has no code
        the exhaustive L4 is used, or, with `exact=False`, the nearest L3 code.
        """
        ids = np.full((sustain.size, 8), -1, np.int32)
        rows, eighth = np.arange(sustain.size), np.zeros(sustain.size, np.int64)
        wanted = Patterns(sustain, onset)
        for depth in range(len(CODE_KINDS)):
            code = self._code(depth, wanted, exact, tolerance)
            done = code >= 0
            ids[rows[done], eighth[done]] = code[done] + self._offsets[depth]
            left = ~done
            if not left.any():
                break
            frames, step = LEVEL_FRAMES[depth + 1], LEVEL_FRAMES[depth + 1] // LEVEL_FRAMES[3]
            rest = wanted.take(left)
            wanted = join_patterns(rest.part(0, frames), rest.part(1, frames))
            rows = np.concatenate([rows[left], rows[left]])
            eighth = np.concatenate([eighth[left], eighth[left] + step])
        return ids

    def _code(self, depth: int, wanted: Patterns, exact: bool, tolerance: int) -> NDArray[np.int64]:
        level = self._search[depth]
        code = level.find(wanted)
        forced = depth == 2 and not exact
        missing = np.flatnonzero(code < 0)
        if missing.size and (forced or (tolerance > 0 and depth < 3)):
            distinct, inverse = unique_patterns(wanted.take(missing))
            index, distance = level.nearest(distinct)
            index[(distance > tolerance) & (not forced)] = -1
            code[missing] = index[inverse]
        return code

    def decode(self, ids: NDArray[np.integer]) -> Patterns:
        """Code ids [C, 8] as `encode` lays them to patterns [C], a sustain after silence made a strike."""
        first = Patterns(
            *(np.where(ids[:, 0] >= 0, masks[ids[:, 0]], np.uint64(0)) for masks in self.id_patterns)
        )
        rows = np.flatnonzero(ids[:, 1:].max(axis=1, initial=-1) >= 0)  # of several codes; few
        part = ids[rows, 1:]
        shift = np.arange(1, 8, dtype=np.uint64) * np.uint64(6)
        for mask, masks in zip(first, self.id_patterns, strict=True):
            rest = np.where(part >= 0, masks[part] << shift, np.uint64(0))
            mask[rows] |= np.bitwise_or.reduce(rest, axis=1)
        return Patterns(first.sustain, strike_after_silence(first.sustain, first.onset))

    def save(self, path: str | Path) -> None:
        """Writes `l1_sustain`, `l1_onset`, … `l3_onset` (uint64 [K]) and `format_version` as .npz."""
        arrays = {}
        for number, patterns in enumerate(self.levels, 1):
            arrays[f"l{number}_sustain"], arrays[f"l{number}_onset"] = patterns
        np.savez_compressed(path, format_version=np.array(FORMAT_VERSION), **arrays)  # type: ignore[arg-type]  # numpy types the keywords as its own flags

    @classmethod
    def load(cls, path: str | Path, vocabulary: Vocabulary) -> Codebook:
        """Reads what `save` writes, or a file with the same six arrays made elsewhere.

        Raises:
            UserError: The file is missing, is no .npz, lacks an array, or does not fit the vocabulary.
        """
        path = Path(path)
        names = [f"l{number}_{mask}" for number in (1, 2, 3) for mask in ("sustain", "onset")]
        try:
            with np.load(path, allow_pickle=False) as file:
                missing = [name for name in names if name not in file]
                arrays = {name: file[name].astype(np.uint64) for name in names if name in file}
                version = int(file["format_version"]) if "format_version" in file else FORMAT_VERSION
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: not a readable .npz codebook ({error}); expected the arrays {', '.join(names)}"
            ) from error
        if missing:
            raise UserError(
                f"{path}: lacks the array(s) {', '.join(missing)}; a codebook holds {', '.join(names)}"
            )
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path}: codebook format {version}, this pianolm reads up to {FORMAT_VERSION}; update pianolm"
            )
        levels = tuple(Patterns(arrays[f"l{n}_sustain"], arrays[f"l{n}_onset"]) for n in (1, 2, 3))
        try:
            return cls(vocabulary, levels)  # type: ignore[arg-type]  # a generator of three loses its length
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def check_level(name: str, patterns: Patterns, frames: int, count: int) -> None:
    """Holds a level against what the tokenizer relies on.

    Raises:
        UserError: A wrong number of codes, a mask that is too wide, an onset without sustain, a repeated pattern,
            or no silent code where one is needed (or one in L1).
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
        raise UserError(f"{name}: a pattern is struck where it does not sound; onset must lie within sustain")
    if unique_patterns(patterns)[0].sustain.size != count:
        raise UserError(f"{name}: a pattern occurs twice; every code needs a pattern of its own")
    silent = int((sustain == 0).sum())
    wanted = 0 if frames == LEVEL_FRAMES[0] else 1
    if silent != wanted:
        raise UserError(f"{name}: {silent} all-silent code(s) found, expected {wanted}")


def unique_patterns(patterns: Patterns) -> tuple[Patterns, NDArray[np.int64]]:
    """Distinct patterns, ascending by (sustain, onset), and [C] which of them each row is."""
    order = np.lexsort((patterns.onset, patterns.sustain))
    ordered = patterns.take(order)
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(ordered.sustain) != 0) | (np.diff(ordered.onset) != 0)
    inverse = np.empty(order.size, np.int64)
    inverse[order] = np.cumsum(new) - 1
    return ordered.take(new), inverse
