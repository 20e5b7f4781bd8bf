"""A preference for bars heard before (`generate.repeat`).

Before a token is sampled, the logits of the tokens that came at the same place of earlier bars are raised: of the next
pitch, and of the codes of that pitch. Each earlier beat has a weight, a softmax over how much the beats before it
resemble the last ones. So the passage that the music follows counts most, and its continuation is preferred.

Only cells that strike a note are preferred: preferring held notes, or the next beat where an earlier beat had no
further note, would thin out the music (`experiments/repetition`).

Shapes: R ids in a range of the token order, V ids.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.sampling import Array, Candidates, TokenOrder
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.sequence import LAST_POSITION
from pianolm.tokenizer.vocabulary import CODE_KINDS, Kind

COMPARED_BEATS = 4
"""Beats before two beats that decide how alike their places are."""
SHARPNESS = 8.0
"""Factor of the similarities, which lie between 0 and 1, in the softmax."""
CODE_SHARE = 0.5
"""Preference of codes relative to that of pitches."""

# Plain numbers: a look-up of an enum member costs more than a step of reading.
_TEMPO, _BAR, _PITCH, _DURATION = int(Kind.TEMPO), int(Kind.BAR), int(Kind.PITCH), int(Kind.DURATION)
_CODES = frozenset(map(int, CODE_KINDS))


@dataclass
class HeardBeat:
    """The cells of a beat, without the tied cells of implicit and explicit ties.

    Attributes:
        position: Of the beat in its bar, from 1.
        cells: The codes of each pitch, pitches ascending.
        pitches: The pitches as bits of a mask.
    """

    position: int
    cells: dict[int, list[int]] = field(default_factory=dict)
    pitches: int = 0


class HeardBeats:
    """The beats of a piece so far, and which of them the current one resembles.

    The position of a beat in its bar is that of its bar token. Where it has none, positions are counted on.

    Args:
        grammar: Of the tokens.
        bar_beats: Length of bars where tokens do not state positions.

    Attributes:
        beats: All beats so far, the last of which may be incomplete.
        states_bars: Whether a beat of the piece has a bar token.
        open_codes: Codes so far of the last cell; None where the last cell is a tied one, or the beat has none.
    """

    def __init__(self, grammar: Grammar, bar_beats: int) -> None:
        self._kinds: list[int] = grammar.kind_of.tolist()
        self._first_pitch = grammar.vocabulary.offset(Kind.PITCH)
        self._first_bar = grammar.vocabulary.offset(Kind.BAR)
        self._bar_beats = bar_beats
        self.beats: list[HeardBeat] = []
        self.states_bars = False
        self.open_codes: list[int] | None = None
        self._n_read, self._is_tied = 0, False
        self._numbers: dict[int, list[int]] = defaultdict(
            list
        )  # of the beats before the current one, by position
        self._earlier: list[tuple[HeardBeat, float]] | None = None

    def read(self, ids: Sequence[int]) -> None:
        """Reads the tokens of a piece that are new since the last call."""
        for token in ids[self._n_read :]:
            kind = self._kinds[token]
            if kind in _CODES:
                if self.open_codes is not None:
                    self.open_codes.append(token)
            elif kind == _TEMPO:
                self._begin_beat()
            elif kind == _BAR:
                self._place_in_bar(token - self._first_bar + 1)
            elif kind == _DURATION:
                self._is_tied = True
            elif kind == _PITCH:
                self._begin_cell(token - self._first_pitch)
        self._n_read = len(ids)

    def skip_to(self, position: int) -> None:
        """Leaves out the tokens before a position that have not been read."""
        self._n_read = position

    def _begin_beat(self) -> None:
        position = 1
        if self.beats:
            last = self.beats[-1].position
            self._numbers[last].append(len(self.beats) - 1)
            position = last % self._bar_beats + 1
        self.beats.append(HeardBeat(position))
        self.open_codes, self._earlier = None, None

    def _place_in_bar(self, position: int) -> None:
        if position == LAST_POSITION and len(self.beats) > 1:  # this token stands for later positions, too
            position = max(position, self.beats[-2].position + 1)
        self.beats[-1].position = position
        self.states_bars, self._earlier = True, None

    def _begin_cell(self, pitch: int) -> None:
        if self._is_tied:
            self._is_tied, self.open_codes = False, None
            return
        self.open_codes = []
        self.beats[-1].cells[pitch] = self.open_codes
        self.beats[-1].pitches |= 1 << pitch

    def earlier(self) -> list[tuple[HeardBeat, float]]:
        """The earlier beats at the current position in the bar, with weights whose sum is 1."""
        if self._earlier is None:
            here = len(self.beats) - 1
            numbers = self._numbers[self.beats[here].position]
            weights = [math.exp(SHARPNESS * self._similarity(here, number)) for number in numbers]
            total = sum(weights)
            self._earlier = [
                (self.beats[number], weight / total) for number, weight in zip(numbers, weights, strict=True)
            ]
        return self._earlier

    def _similarity(self, beat: int, other: int) -> float:
        """Jaccard index of the (beat, pitch) pairs in the beats before two beats; the second comes earlier."""
        shared = either = 0
        for back in range(1, min(COMPARED_BEATS, other) + 1):
            a, b = self.beats[beat - back].pitches, self.beats[other - back].pitches
            shared += (a & b).bit_count()
            either += (a | b).bit_count()
        return shared / either if either else 0.0


class Repetition:
    """Raises the logits of what came at the same place of earlier bars.

    Args:
        grammar: Of the tokens.
        order: The order of the ids in which logits are given.
        strikes_V: Whether each code strikes a note; None where all cells but tied ones do.
        strength: Added to the logit of a pitch that followed in all earlier bars.
    """

    def __init__(
        self, grammar: Grammar, order: TokenOrder, strikes_V: NDArray[np.bool_] | None, strength: float
    ) -> None:
        self._strength, self._index_of = strength, order.index_of
        self._first_pitch = grammar.vocabulary.offset(Kind.PITCH)
        needs_strikes = grammar.ties == "repeat" and strikes_V is not None
        self._strikes: list[bool] | None = strikes_V.tolist() if needs_strikes else None  # type: ignore[union-attr]

    def prefer(self, logits_R: Array, candidates: Candidates, heard: HeardBeats, state: State) -> None:
        """Raises logits in place.

        Args:
            logits_R: Logits of the indices `candidates.low` to `candidates.high` of the token order.
            candidates: The ids that may come.
            heard: The beats of the piece, which has been read up to its last token.
            state: The grammar's state after that token.
        """
        if not heard.beats:
            return
        if state.between_cells:
            if state.phase == Phase.TEMPO and heard.states_bars:
                return  # the position in the bar comes first
            preferences = self._next_pitches(heard, state.last_pitch)
        elif Phase.CODES <= state.phase < Phase.VELOCITY and heard.open_codes is not None:
            preferences = self._next_codes(heard, state.last_pitch, heard.open_codes)
        else:
            return
        for token, weight in preferences:
            index = self._index_of[token] - candidates.low
            if 0 <= index < logits_R.size:
                logits_R[index] += np.float32(self._strength * weight)

    def _next_pitches(self, heard: HeardBeats, last_pitch: int) -> Iterator[tuple[int, float]]:
        """Pitches that came next in earlier bars, each with its weight."""
        for beat, weight in heard.earlier():
            pitch = next((pitch for pitch in beat.cells if pitch > last_pitch), None)
            if pitch is not None and self._is_struck(beat.cells[pitch]):
                yield self._first_pitch + pitch, weight

    def _next_codes(self, heard: HeardBeats, pitch: int, codes: list[int]) -> Iterator[tuple[int, float]]:
        """Codes that followed those of the open cell in earlier bars, each with its weight."""
        n_codes = len(codes)
        for beat, weight in heard.earlier():
            other = beat.cells.get(pitch, [])
            if len(other) > n_codes and other[:n_codes] == codes and self._is_struck(other):
                yield other[n_codes], weight * CODE_SHARE

    def _is_struck(self, codes: list[int]) -> bool:
        return self._strikes is None or any(self._strikes[code] for code in codes)
