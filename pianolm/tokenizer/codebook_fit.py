"""Fits the codebook to cells: three methods of choosing the patterns of L1, L2 and L3.

* `frequency`: the most frequent patterns of each level.
* `savings`: the patterns that save the most codes, given the other levels. Repeated, because the best choice for L1
  depends on the patterns that L2 and L3 write in few codes. Finer levels count only the parts that coarser ones lack.
* `kmeans`: weighted Lloyd iterations in frame distance, level by level, starting from `savings`. A centroid is the
  majority of its cluster, replaced by the nearest pattern of the cluster.

`auto` measures all three in codes per cell and keeps the best.

Shapes: C cells, U distinct patterns, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.tokenizer.codebook import (
    LEVEL_FRAMES,
    Codebook,
    Level,
    Patterns,
    frame_distance,
    join_patterns,
    unique_patterns,
)
from pianolm.tokenizer.vocabulary import CODE_KINDS, Vocabulary

METHODS = ("auto", "frequency", "savings", "kmeans")
_ROUNDS = 4
"""Most rounds of `savings`; it stops earlier when a round saves nothing."""
_KMEANS_PATTERNS = 16_384
"""Heaviest distinct patterns of a level that k-means sees; the others weigh too little to move a centroid."""
_CHUNK = 1024
"""Patterns compared with all centroids at a time, which bounds memory."""


@dataclass(frozen=True)
class Weighted:
    """Distinct patterns [U] of one level and their frequencies [U]."""

    patterns: Patterns
    weight: NDArray[np.int64]

    @classmethod
    def gather(cls, patterns: Patterns, weight: NDArray[np.int64] | None = None) -> Weighted:
        """Counts patterns [C], each with weight 1 or the weight given."""
        distinct, inverse = unique_patterns(patterns)
        counts = np.bincount(inverse, weight, minlength=distinct.sustain.size)
        return cls(distinct, np.rint(counts).astype(np.int64))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Weighted:
        """Some of the patterns."""
        return Weighted(self.patterns.take(rows), self.weight[rows])

    def split(self, frames: int) -> Weighted:
        """The two halves of every pattern, of `frames` frames each, counted together."""
        both = join_patterns(self.patterns.part(0, frames), self.patterns.part(1, frames))
        return Weighted.gather(both, np.concatenate([self.weight, self.weight]))


@dataclass(frozen=True)
class Fit:
    """A fitted codebook.

    Attributes:
        codebook: The best codebook.
        method: The method that gave it.
        codes_per_cell: Codes per cell of every method that was tried.
        coverage: For L1, L2 and L3, the share of the parts looked up in the level that it has.
        distinct_cells: Number of distinct patterns of a whole beat.
    """

    codebook: Codebook
    method: str
    codes_per_cell: dict[str, float]
    coverage: tuple[float, float, float]
    distinct_cells: int


def fit_codebook(
    sustain: NDArray[np.uint64],
    onset: NDArray[np.uint64],
    vocabulary: Vocabulary,
    method: str = "auto",
    iterations: int = 5,
) -> Fit:
    """Fits L1, L2 and L3 to cells [C].

    If there are fewer distinct patterns than codes, simple patterns that did not occur fill the rest, so that every id
    has its own pattern.

    Args:
        sustain: [C] masks of the training cells.
        onset: [C] masks.
        vocabulary: Gives the number of codes a level.
        method: One of `METHODS`.
        iterations: Lloyd iterations of k-means.

    Raises:
        UserError: An unknown method, or no cells.
    """
    if method not in METHODS:
        raise UserError(f"codebook.method={method!r} found, expected one of {', '.join(METHODS)}")
    if sustain.size == 0:
        raise UserError(
            "codebook: no training cells found, expected training pieces with notes; check data.*"
        )
    cells = Weighted.gather(Patterns(sustain, onset))
    choosers: dict[str, Callable[[], list[Patterns]]] = {
        "frequency": lambda: _by_frequency(cells, vocabulary),
        "savings": lambda: _by_savings(cells, vocabulary),
        "kmeans": lambda: _by_kmeans(cells, vocabulary, iterations),
    }
    tried = {
        name: complete(choose(), vocabulary) for name, choose in choosers.items() if method in ("auto", name)
    }
    scores = {name: codes_per_cell(codebook, cells) for name, codebook in tried.items()}
    best = min(scores, key=lambda name: scores[name])
    codebook = tried[best]
    return Fit(codebook, best, scores, _coverage(codebook, cells), cells.weight.size)


def codes_per_cell(codebook: Codebook, cells: Weighted) -> float:
    """Mean number of codes that exact encoding takes."""
    _, cost = _costs([Level(p) for p in codebook.levels], cells.patterns)
    return float((cost * cells.weight).sum() / cells.weight.sum())


def complete(levels: list[Patterns], vocabulary: Vocabulary) -> Codebook:
    """A codebook of full size: silence first in L2 and L3, then the given patterns, then simple ones."""
    filled = []
    for kind, frames, chosen in zip(CODE_KINDS, LEVEL_FRAMES, levels, strict=False):
        seen = dict.fromkeys(zip(chosen.sustain.tolist(), chosen.onset.tolist(), strict=True))
        masks = [] if frames == LEVEL_FRAMES[0] else [(0, 0)]
        masks += list(seen)[: vocabulary.count(kind) - len(masks)]
        for pattern in simple_patterns(frames):
            if len(masks) >= vocabulary.count(kind):
                break
            if pattern not in seen:
                masks.append(pattern)
        if len(masks) < vocabulary.count(kind):
            raise UserError(
                f"tokenizer.vocabulary.{kind.name.lower()}={vocabulary.count(kind)} found, expected at most "
                f"{len(masks)}: there are no more simple patterns to fill the level with"
            )
        both = np.array(masks, np.uint64)
        filled.append(Patterns(both[:, 0].copy(), both[:, 1].copy()))
    return Codebook(vocabulary, (filled[0], filled[1], filled[2]))


def simple_patterns(frames: int) -> Iterator[tuple[int, int]]:
    """Patterns for codes without a learned one, always in the same order and never silent.

    A struck note, a held note, a held and a struck note, two struck notes.
    """
    spans = [(a, b) for b in range(1, frames + 1) for a in range(b)]
    mask = {(a, b): (1 << b) - (1 << a) for a, b in spans}
    yield from ((mask[a, b], 1 << a) for a, b in spans)
    yield from ((mask[0, b], 0) for b in range(1, frames + 1))
    yield from ((mask[0, h] | mask[a, b], 1 << a) for h in range(1, frames) for a, b in spans if a >= h)
    yield from (
        (mask[a, b] | mask[c, d], 1 << a | 1 << c) for (a, b), (c, d) in combinations(spans, 2) if b <= c
    )


def _top(candidates: Weighted, score: NDArray[np.int64], count: int) -> Patterns:
    """The `count` patterns of highest positive score that are not silent; equal scores in the order of patterns."""
    useful = np.flatnonzero((candidates.patterns.sustain != 0) & (score > 0))
    order = useful[np.argsort(-score[useful], kind="stable")]
    return candidates.patterns.take(order[:count])


def _sizes(vocabulary: Vocabulary) -> list[int]:
    """Number of learned codes of each level: all but the silent code of L2 and L3."""
    return [vocabulary.count(kind) - (kind != CODE_KINDS[0]) for kind in CODE_KINDS[:3]]


def _by_frequency(cells: Weighted, vocabulary: Vocabulary) -> list[Patterns]:
    halves = cells.split(LEVEL_FRAMES[1])
    parts = [cells, halves, halves.split(LEVEL_FRAMES[2])]
    return [_top(p, p.weight, size) for p, size in zip(parts, _sizes(vocabulary), strict=True)]


def _by_savings(cells: Weighted, vocabulary: Vocabulary) -> list[Patterns]:
    sizes = _sizes(vocabulary)
    levels = _by_frequency(cells, vocabulary)
    best, best_codes = levels, np.inf
    for _ in range(_ROUNDS):
        parts = cells
        for depth, size in enumerate(sizes):
            finer = [_with_silence(p) for p in levels[depth + 1 :]]
            apart = _cost_apart(finer, parts.patterns, LEVEL_FRAMES[depth + 1])
            levels = [*levels[:depth], _top(parts, parts.weight * (apart - 1), size), *levels[depth + 1 :]]
            parts = _missing_parts(parts, levels[depth], depth)
        codes = codes_per_cell(complete(levels, vocabulary), cells)
        if codes >= best_codes:
            break
        best, best_codes = levels, codes
    return best


def _by_kmeans(cells: Weighted, vocabulary: Vocabulary, iterations: int) -> list[Patterns]:
    start = _by_savings(cells, vocabulary)
    levels, parts = [], cells
    for depth, size in enumerate(_sizes(vocabulary)):
        sounding = parts.take(np.flatnonzero(parts.patterns.sustain))
        chosen = (
            _lloyd(sounding, start[depth], LEVEL_FRAMES[depth], iterations)
            if sounding.weight.size > size
            else start[depth]
        )
        levels.append(chosen)
        parts = _missing_parts(parts, chosen, depth)
    return levels


def _missing_parts(parts: Weighted, chosen: Patterns, depth: int) -> Weighted:
    """The halves of the patterns that this level lacks: what is looked up in the next finer level."""
    return parts.take(Level(_with_silence(chosen, depth > 0)).find(parts.patterns) < 0).split(
        LEVEL_FRAMES[depth + 1]
    )


def _with_silence(patterns: Patterns, silence: bool = True) -> Patterns:
    zero = np.zeros(1, np.uint64)
    return join_patterns(Patterns(zero, zero), patterns) if silence else patterns


def _lloyd(cells: Weighted, start: Patterns, frames: int, iterations: int) -> Patterns:
    """Weighted k-means of patterns in frame distance, with patterns that occur as centroids."""
    heavy = cells.take(np.argsort(-cells.weight, kind="stable")[:_KMEANS_PATTERNS])
    centroids = start
    for _ in range(iterations):
        cluster, _ = _assign(heavy.patterns, centroids)
        moved = _snap(heavy, cluster, _majority(heavy, cluster, centroids, frames))
        moved = unique_patterns(moved)[0]
        if (
            moved.sustain.size == centroids.sustain.size
            and (moved.sustain == unique_patterns(centroids)[0].sustain).all()
        ):
            break
        centroids = moved
    return _refill(heavy, centroids, start.sustain.size)


def _assign(patterns: Patterns, centroids: Patterns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[U] nearest centroid of each pattern, and its distance in frames."""
    index, distance = np.empty(patterns.sustain.size, np.int64), np.empty(patterns.sustain.size, np.int64)
    for low in range(0, index.size, _CHUNK):
        rows = np.arange(low, min(low + _CHUNK, index.size))
        frames = frame_distance(patterns.take(rows), centroids)
        index[rows] = frames.argmin(axis=1)
        distance[rows] = frames.min(axis=1)
    return index, distance


def _majority(cells: Weighted, cluster: NDArray[np.int64], centroids: Patterns, frames: int) -> Patterns:
    """[K] the bits set in more than half of each cluster's weight; an empty cluster keeps its centroid."""
    count = centroids.sustain.size
    total = np.bincount(cluster, cells.weight, minlength=count)
    masks: list[NDArray[np.uint64]] = []
    for members, before in zip(cells.patterns, centroids, strict=True):
        mask = np.zeros(count, np.uint64)
        for frame in range(frames):
            bit = (members >> np.uint64(frame)) & np.uint64(1)
            heavy = np.bincount(cluster, cells.weight * bit, minlength=count) * 2 > total
            mask |= heavy.astype(np.uint64) << np.uint64(frame)
        masks.append(np.where(total > 0, mask, before))
    return Patterns(masks[0], masks[1] & masks[0])


def _snap(cells: Weighted, cluster: NDArray[np.int64], centroids: Patterns) -> Patterns:
    """[K] the member of each cluster nearest to its centroid; of equally near ones, the heaviest."""
    centroid = centroids.take(cluster)
    distance = np.bitwise_count(
        (cells.patterns.sustain ^ centroid.sustain) | (cells.patterns.onset ^ centroid.onset)
    )
    order = np.lexsort((-cells.weight, distance, cluster))
    first = order[np.flatnonzero(np.diff(cluster[order], prepend=-1))]
    return cells.patterns.take(first)


def _refill(cells: Weighted, centroids: Patterns, size: int) -> Patterns:
    """Replaces clusters that are empty or have become equal by the heaviest patterns not yet chosen."""
    free = Level(centroids).find(cells.patterns) < 0
    return join_patterns(
        centroids, cells.patterns.take(np.flatnonzero(free)[: size - centroids.sustain.size])
    )


def _cost_apart(finer: list[Patterns], patterns: Patterns, frames: int) -> NDArray[np.int64]:
    """[U] codes of each pattern if its own level lacks it; `finer` are the levels below except L4."""
    halves = [patterns.part(0, frames), patterns.part(1, frames)]
    if not finer:
        return np.full(patterns.sustain.size, 2, np.int64)  # L4 has every pattern of an eighth
    cost = np.zeros(patterns.sustain.size, np.int64)
    level = Level(finer[0])
    for half in halves:
        apart = _cost_apart(finer[1:], half, frames // 2)
        cost += np.where(level.find(half) >= 0, 1, apart)
    return cost


def _costs(levels: list[Level], cells: Patterns) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """[U] whether L1 has each cell, and the number of its codes."""
    in_l1 = levels[0].find(cells) >= 0
    apart = _cost_apart([level.patterns for level in levels[1:]], cells, LEVEL_FRAMES[1])
    return in_l1, np.where(in_l1, 1, apart)


def _coverage(codebook: Codebook, cells: Weighted) -> tuple[float, float, float]:
    """For each level, the share of the parts looked up in it that it has; 1 where none is looked up."""
    parts, shares = cells, []
    for depth, patterns in enumerate(codebook.levels):
        found = Level(patterns).find(parts.patterns) >= 0
        total = int(parts.weight.sum())
        shares.append(float(parts.weight[found].sum() / total) if total else 1.0)
        parts = parts.take(~found).split(LEVEL_FRAMES[depth + 1])
    return shares[0], shares[1], shares[2]
