"""Which ids may stand where in a sequence, packed: what a model under a grammar chooses from.

Shapes: T tokens, V ids, M distinct sets of ids, P bytes that hold V bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.tokenizer.grammar import Grammar, State


class LegalIds(NamedTuple):
    """Sets of ids by place.

    Attributes:
        which: [T] the set from which each token was chosen.
        packed: [M, P] the sets, as `numpy.packbits` lays bits.
    """

    which: NDArray[np.int64]
    packed: NDArray[np.uint8]

    @classmethod
    def from_sets(cls, allowed: Iterable[NDArray[np.bool_]]) -> LegalIds:
        """Of the sets [V] of every place; equal ones are kept once."""
        rows: dict[bytes, int] = {}
        which = [rows.setdefault(np.packbits(ids).tobytes(), len(rows)) for ids in allowed]
        return cls(np.array(which, np.int64), np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1))


def unpacked(packed_nP: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """[n, V] bool of packed sets, V = `size`."""
    bits: NDArray[np.bool_] = np.unpackbits(packed_nP, axis=1, count=size).view(bool)
    return bits


def legal_ids(grammar: Grammar, ids: NDArray[np.int64]) -> LegalIds:
    """The ids that a grammar allows at each place of a sequence [T] that keeps to it.

    Raises:
        ValueError: A token may not stand where it stands.
    """
    kept: dict[State, NDArray[np.bool_]] = {}

    def sets() -> Iterable[NDArray[np.bool_]]:
        state = grammar.start()
        for token in ids.tolist():
            seen = grammar.seen(state)._replace(told=state.told)
            if seen not in kept:
                kept[seen] = grammar.allowed(state)
            if not kept[seen][token]:
                grammar.advance(state, token)  # says what is wrong
            yield kept[seen]
            state = grammar.after(state, token)

    return LegalIds.from_sets(sets())
