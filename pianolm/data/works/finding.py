"""Finds pieces that are the same music among many, by their note sketches.

MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998; library datasketch) give candidates without
comparing all pairs, the pieces that share at least two values of the signature. The best of them are aligned. Two
pieces by one composer need less agreement than two by different ones, and pieces of one catalogue number are candidates
in any case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from pianolm.data.works.alignment import Alignment, align
from pianolm.data.works.catalogue import Catalogue, Work
from pianolm.data.works.note_sketch import SIGNATURE, NoteSketch

_SHARED_VALUES = 2
"""Values of the signature that a candidate shares: at a Jaccard index of 0.1 this misses one pair in a hundred."""
_TRIES = 5
"""Candidates of each group that a piece is aligned with, and groups that it is tried against."""
_GROUPS = 40
_LEAST_COMMON, _LEAST_BLOCKS = 8, 3
"""Common shingles in order, and blocks in which they lie."""
_COVERAGE, _TRANSPOSED, _ONE_COMPOSER, _OTHER_COMPOSER = 0.5, 1.3, 0.7, 1.3
"""Coverage from which on two pieces are the same, and factors of it (see the distributions in experiments/works)."""
_MUCH_COMMON, _COVERAGE_OF_MUCH = 40, 0.35
"""So many common shingles in order are no chance: less coverage is enough, as in a rendition with many wrong notes."""
_NO_PERMUTATIONS = np.ones((2, SIGNATURE), np.uint32)
"""Signatures come complete; without these each MinHash would draw its own permutations."""
_NO_COMPOSER = ("", "?", "anonim", "anonymous", "traditional", "unknown")


class Groups:
    """Disjoint sets of the numbers 0 … size − 1 (union–find with path halving)."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        """The representative of the set that an item is in."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        """Joins the sets of two items."""
        self._parent[self.find(b)] = self.find(a)


class WorkFinder:
    """Takes pieces one after another and joins those that are the same music.

    Args:
        works: Composer and title of each piece, None where they are unknown.
        groups: Pieces that are known to be the same; what is found is joined in it.
    """

    def __init__(self, works: Sequence[Work | None], groups: Groups) -> None:
        from datasketch import MinHashLSH

        self._works, self._groups = works, groups
        self._sketches: dict[int, NoteSketch] = {}
        self._lsh = MinHashLSH(num_perm=SIGNATURE, params=(SIGNATURE, 1))
        self._by_catalogue: dict[tuple[str, Catalogue], list[int]] = defaultdict(list)
        self._signatures = np.zeros((len(works), SIGNATURE), np.uint32)

    def add(self, piece: int, sketch: NoteSketch) -> None:
        """Compares a piece with those added before it."""
        from datasketch import MinHash

        if sketch.hashes.size < _LEAST_COMMON:
            return
        self._signatures[piece] = sketch.signature
        minhash = MinHash(
            SIGNATURE, hashvalues=sketch.signature, permutations=_NO_PERMUTATIONS, scheme="affine32"
        )
        self._join_best(piece, sketch, self._lsh.query(minhash))
        self._sketches[piece] = sketch
        self._lsh.insert(piece, minhash, check_duplication=False)
        for key in self._catalogue_keys(piece):
            self._by_catalogue[key].append(piece)

    def _join_best(self, piece: int, sketch: NoteSketch, found: Sequence[int]) -> None:
        tries: Counter[int] = Counter()
        for other in self._candidates(piece, found):
            group = self._groups.find(other)
            if group == self._groups.find(piece) or tries[group] >= _TRIES:
                continue
            if group not in tries and len(tries) >= _GROUPS:
                continue
            tries[group] += 1
            alignment = align(sketch, self._sketches[other])
            if is_same(alignment, self._works[piece], self._works[other]):
                self._groups.join(other, piece)

    def _candidates(self, piece: int, found: Sequence[int]) -> Iterator[int]:
        """Pieces of the same catalogue number, then the others that share most values of the signature."""
        work = self._works[piece]
        for key in self._catalogue_keys(piece):
            for other in self._by_catalogue[key]:
                listed = self._works[other]
                if work and listed and (work.same_as(listed) or listed.same_as(work)):
                    yield other
        candidates = np.array(sorted(found), np.intp)
        shared = (self._signatures[candidates] == self._signatures[piece]).sum(axis=1)
        best = np.argsort(-shared, kind="stable")
        yield from candidates[best[shared[best] >= _SHARED_VALUES]].tolist()

    def _catalogue_keys(self, piece: int) -> list[tuple[str, Catalogue]]:
        work = self._works[piece]
        return [(work.surname, number) for number in sorted(work.catalogue)] if work else []


def is_same(alignment: Alignment, a: Work | None, b: Work | None) -> bool:
    """Whether two pieces are the same music, given their alignment and what is known of their composers."""
    if alignment.common < _LEAST_COMMON or alignment.blocks < _LEAST_BLOCKS:
        return False
    composers = {work.surname if work else "" for work in (a, b)}
    known = composers.isdisjoint(_NO_COMPOSER)
    if known and len(composers) > 1:  # a variation on another's piece has much in common with it
        coverage = _COVERAGE * _OTHER_COMPOSER * (_TRANSPOSED if alignment.transposition else 1)
    elif alignment.common >= _MUCH_COMMON:
        coverage = _COVERAGE_OF_MUCH
    else:
        coverage = _COVERAGE * (_TRANSPOSED if alignment.transposition else 1)
    return alignment.coverage >= coverage * (_ONE_COMPOSER if known and len(composers) == 1 else 1)
