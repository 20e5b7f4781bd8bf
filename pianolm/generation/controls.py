"""Generation with controls: levels of loudness and density that the new music is to have, beat by beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.sampling import Array, Candidates, TokenOrder
from pianolm.generation.state import GenerationState, window_start
from pianolm.generation.tilt import DensityTilt, LoudnessTilt, NoteFeatures
from pianolm.music.bars import DEFAULT_BAR_BEATS
from pianolm.tokenizer.controls import control_id, controls_in_force
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.vocabulary import CONTROLS, Kind


@dataclass(frozen=True, eq=False)
class AskedLevels:
    """Levels that new music is to have, and what is needed to bring it there.

    Attributes:
        by_kind: Levels of the first new beats by the kind of their control, at least one; the last one holds on.
        features: What the ids of the tokenizer say about loudness and density.
        is_told: Whether the model was trained with controls, so that it is told the levels, too.
    """

    by_kind: Mapping[Kind, Sequence[int]]
    features: NoteFeatures
    is_told: bool

    def level(self, kind: Kind, beat: int) -> int:
        """The level of a new beat."""
        levels = self.by_kind[kind]
        return levels[min(beat, len(levels) - 1)]


class ControlledState(GenerationState):
    """A piece whose new beats have levels: its distributions are tilted towards them.

    A model that was trained with controls is told the levels, too: before the first new beat, and before each beat at
    which they change.

    Args:
        asked: The levels.
        grammar, prompt, seed, context, name, bar_beats: See `GenerationState`.
    """

    def __init__(
        self,
        asked: AskedLevels,
        grammar: Grammar,
        prompt: NDArray[np.int64],
        seed: int,
        context: int,
        name: str = "prompt",
        bar_beats: int = DEFAULT_BAR_BEATS,
    ) -> None:
        # where the beats before are forgotten, the levels that hold are said again
        room = len(CONTROLS) if asked.is_told else 0
        super().__init__(grammar, prompt, seed, context - room, name, bar_beats)
        self._asked, self._said = asked, dict[Kind, int]()
        self._loudness, self._density = LoudnessTilt(asked.features), DensityTilt(asked.features, self.ids)
        tempi = grammar.vocabulary.ids(Kind.TEMPO)
        self._is_tempo = range(tempi.start, tempi.stop)

    def tilt(self, logits_R: Array, candidates: Candidates) -> None:
        """Changes the logits of candidates in place, towards the levels of the beat that has begun last."""
        if not self.new_beats:
            return
        if Kind.DENSITY in self._asked.by_kind:
            self._density.tilt(logits_R, candidates, self._asked.level(Kind.DENSITY, self.new_beats - 1))
        if Kind.LOUDNESS in self._asked.by_kind and self.grammar_state.phase == Phase.VELOCITY:
            level = self._asked.level(Kind.LOUDNESS, self.new_beats - 1)
            self._loudness.tilt(logits_R, candidates, self.ids, level)

    def taken(self, token: int, ends: bool) -> int:
        """The control that comes before a sampled tempo, if one does; it is then sampled anew."""
        due = self._due() if token in self._is_tempo and not ends else None
        return token if due is None else due

    def forced(self, order: TokenOrder) -> int | None:
        """The density that follows a loudness, or what follows from the tokens before in any case."""
        due = self._due() if self.grammar_state.phase == Phase.LOUDNESS else None
        return super().forced(order) if due is None else due

    def appended(self, token: int) -> None:
        """Notes what has been said and played."""
        self._density.read(token)
        kind = Kind(self.grammar.kind_of[token])
        if kind in CONTROLS:
            self._said[kind] = token

    def visible(self) -> list[int]:
        """What the model sees, with the controls that hold there before its first beat."""
        start = window_start(len(self.ids), self.beat_starts, self.context)
        if not start:
            return self.ids
        vocabulary = self.grammar.vocabulary
        return [
            *vocabulary.tuning_id(self.ids),
            *controls_in_force(vocabulary, self.ids[:start]),
            *self.ids[start:],
        ]

    def _due(self) -> int | None:
        """The first control that must be said before the beat that begins next."""
        for kind in CONTROLS:
            if self._asked.is_told and kind in self._asked.by_kind:
                token = control_id(self.grammar.vocabulary, kind, self._asked.level(kind, self.new_beats))
                if self._said.get(kind) != token:
                    return token
        return None
