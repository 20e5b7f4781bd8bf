"""Models that are only told levels, with classifier-free guidance: what was tried before distributions were tilted.

Levels were left out of most training windows, so the model knows the music with them and without. Guidance
(Ho and Salimans 2022; Sanchez et al. 2023) samples from without + strength · (with − without), of log-probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pianolm import PianoLM
from pianolm.generation.controls import ControlledState
from pianolm.generation.engine.base import Array, Engine
from pianolm.generation.state import GenerationState
from pianolm.tokenizer.vocabulary import CONTROLS


class GuidedEngine:
    """An engine whose rows have a second one each, which reads the same tokens without controls.

    Args:
        engine: Has twice as many rows.
        rows: Number of rows.
        controls: Ids of controls.
        strength: 1 for the distribution with controls.
    """

    def __init__(self, engine: Engine, rows: int, controls: frozenset[int], strength: float) -> None:
        self._engine, self._rows = engine, rows
        self._controls, self._strength = controls, np.float32(strength)
        self.context = engine.context

    @property
    def lengths(self) -> list[int]:
        """Of the rows with controls, which are the longer ones."""
        return self._engine.lengths[: self._rows]

    def clear(self, row: int) -> None:
        for one in (row, row + self._rows):
            self._engine.clear(one)

    def copy(self, source: int, target: int) -> None:
        for shift in (0, self._rows):
            self._engine.copy(source + shift, target + shift)

    def extend(self, row: int, ids: Sequence[int]) -> None:
        self._engine.extend(row, ids)
        self._engine.extend(row + self._rows, self._without(ids))

    def read(self, ids_by_row: Mapping[int, Sequence[int]]) -> None:
        without = {row + self._rows: self._without(ids) for row, ids in ids_by_row.items()}
        self._engine.read({**ids_by_row, **{row: ids for row, ids in without.items() if ids}})

    def logits(self, rows: Sequence[int], low: int, high: int) -> Array:
        both = self._engine.logits([*rows, *(row + self._rows for row in rows)], low, high)
        told, untold = np.split(both, 2)
        return untold + self._strength * (told - untold)

    def _without(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token not in self._controls]


def tell_only(lm: PianoLM, guidance: float) -> None:
    """Lets a model generate without tilting, with guidance if it is not 1."""
    assert lm.is_controlled, "a model that was trained with controls"
    ControlledState.tilt = GenerationState.tilt  # type: ignore[method-assign]
    kind_of, generator = lm.tokenizer.vocabulary.kind_of, lm.generator
    controls = frozenset(np.flatnonzero(np.isin(kind_of, CONTROLS)).tolist())
    make = generator.make_engine
    if guidance != 1:
        generator.make_engine = lambda rows: GuidedEngine(make(2 * rows), rows, controls, guidance)
