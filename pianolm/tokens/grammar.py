"""The grammar of token sequences: one table that the validator, the decoder, the sampler and the tests read.

    [BOS]  tempo  bar?  (pitch codes velocity)*  tempo  bar?  (pitch codes velocity)*  …  [EOS]
    codes  :=  L1  |  half half        half  :=  L2  |  quarter quarter        quarter  :=  L3  |  L4 L4

A state is a phase (a row of the table), the pitch floor (the last pitch of the beat) and whether the cell sounds yet.

Three options of the tokenizer bend it. Only with bars has the table a place for a beat's position in its bar. Cells
without a strike may go without their velocity token, and pitches may descend: both are read off the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.tokens.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind, Vocabulary

ILLEGAL = -1


class Phase(IntEnum):
    """Rows of the table: what has been read so far. `CODES + n`: a pitch, then codes for n eighths of the beat."""

    START = 0
    OPENED = 1  # after BOS
    BEAT = 2  # after a tempo, its bar or a whole cell
    CODES = 3  # 3 … 10: zero to seven eighths filled
    VELOCITY = 11  # all eight filled, velocity wanted
    ENDED = 12  # after EOS
    TEMPO = 13  # after a tempo where a bar may come; without bars that is BEAT


N_PHASES = 14


def transition_table(velocity: bool, bars: bool = False) -> NDArray[np.int8]:
    """[phase, kind] → next phase, or ILLEGAL.

    A code that fills n eighths may stand only where a multiple of n is filled: halves and quarters are never split
    by a coarser code.
    """
    table = np.full((N_PHASES, len(Kind)), ILLEGAL, np.int8)
    table[Phase.START, Kind.BOS] = Phase.OPENED
    table[[Phase.START, Phase.OPENED, Phase.BEAT], Kind.TEMPO] = Phase.TEMPO if bars else Phase.BEAT
    table[Phase.BEAT, Kind.PITCH] = Phase.CODES
    table[Phase.BEAT, Kind.EOS] = Phase.ENDED
    if bars:
        table[Phase.TEMPO] = table[Phase.BEAT]
        table[Phase.TEMPO, Kind.BAR] = Phase.BEAT
    table[Phase.ENDED, Kind.PAD] = Phase.ENDED
    done = Phase.VELOCITY if velocity else Phase.BEAT
    for kind in CODE_KINDS:
        for filled in range(0, 8, EIGHTHS_OF_KIND[kind]):
            after = filled + EIGHTHS_OF_KIND[kind]
            table[Phase.CODES + filled, kind] = done if after == 8 else Phase.CODES + after
    if velocity:
        table[Phase.VELOCITY, Kind.VELOCITY] = Phase.BEAT
    return table


BETWEEN_CELLS = (Phase.TEMPO, Phase.BEAT)
"""Phases in which a beat has begun and no cell is open, so that the next beat may begin."""


class State(NamedTuple):
    """Where a sequence stands.

    Attributes:
        phase: Row of the table.
        floor: Rank of the last pitch of the beat, −1 before the first. The rank is the pitch, or 127 minus it where
            pitches descend.
        sounding: Whether the codes of the cell so far are not all silent.
        struck: Whether one of them strikes a note, kept only where that decides about the velocity token.
    """

    phase: int = Phase.START
    floor: int = -1
    sounding: bool = False
    struck: bool = False


@dataclass(frozen=True)
class Problem:
    """The first thing wrong with a sequence: its position, and a sentence."""

    position: int
    message: str


class Grammar:
    """The table for one vocabulary and one mode.

    Args:
        vocabulary: The ids.
        velocity: Whether every cell carries a velocity token.
        silent: [V] bool, the codes whose pattern is all silent.
        strikes: [V] bool, the codes that strike a note, where cells without one carry no velocity token; None where
            every cell carries one.
        descending: Whether the pitches of a beat fall instead of rising.
        bars: Whether a tempo may be followed by the beat's position in its bar.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        velocity: bool,
        silent: NDArray[np.bool_],
        strikes: NDArray[np.bool_] | None = None,
        descending: bool = False,
        bars: bool = False,
    ) -> None:
        assert silent.shape == (vocabulary.size,), "one flag an id"
        self.vocabulary = vocabulary
        self.velocity = velocity
        self.silent = silent
        self.strikes = strikes if velocity else None
        self.descending = descending
        self.bars = bars
        self.table = transition_table(velocity, bars)
        self.kind_of = vocabulary.kind_of
        self.pitch_of = np.arange(vocabulary.size) - vocabulary.offset(Kind.PITCH)
        self.rank_of = vocabulary.pitch - 1 - self.pitch_of if descending else self.pitch_of
        is_code = np.isin(self.kind_of, [int(kind) for kind in CODE_KINDS])
        self._completes = {  # codes that would complete a cell from this phase; silent ones may not if all was silent
            phase: self._allowed_kinds(phase) & is_code & self._fills_up(phase)
            for phase in range(Phase.CODES, Phase.CODES + 8)
        }
        self._by_phase = [self._allowed_kinds(phase) for phase in range(N_PHASES)]

    def _allowed_kinds(self, phase: int) -> NDArray[np.bool_]:
        return (self.table[phase] != ILLEGAL)[self.kind_of]

    def _fills_up(self, phase: int) -> NDArray[np.bool_]:
        after = self.table[phase][self.kind_of]
        return (after == Phase.VELOCITY) | (after == Phase.BEAT)

    def start(self) -> State:
        """The state before any token."""
        return State()

    def allowed(self, state: State) -> NDArray[np.bool_]:
        """[V] the ids that may come next."""
        ids = self._by_phase[state.phase]
        if state.phase == Phase.BEAT and state.floor >= 0:
            return ids & ((self.kind_of != Kind.PITCH) | (self.rank_of > state.floor))
        if Phase.CODES <= state.phase < Phase.VELOCITY and not state.sounding:
            return ids & ~(self._completes[state.phase] & self.silent)
        return ids

    def advance(self, state: State, token: int) -> State:
        """The state after one more token, which must be allowed.

        Raises:
            ValueError: The token may not stand there.
        """
        problem = self._problem(state, token)
        if problem:
            raise ValueError(problem)
        kind = Kind(self.kind_of[token])
        phase = int(self.table[state.phase, kind])
        if kind is Kind.PITCH:
            return State(phase, int(self.rank_of[token]))
        if kind in CODE_KINDS:
            return self._after_code(state, token, phase)
        return State(phase, -1 if kind is Kind.TEMPO else state.floor)

    def _after_code(self, state: State, token: int, phase: int) -> State:
        sounding = state.sounding or not bool(self.silent[token])
        if self.strikes is None:
            return State(phase, state.floor, sounding)
        struck = state.struck or bool(self.strikes[token])
        if phase == Phase.VELOCITY and not struck:  # held all along: the velocity is that of the cell before
            return State(Phase.BEAT, state.floor)
        return State(phase, state.floor, sounding, struck)

    def _problem(self, state: State, token: int) -> str | None:
        if not 0 <= token < self.vocabulary.size:
            return f"{token} is not an id of this vocabulary (0–{self.vocabulary.size - 1})"
        if self.allowed(state)[token]:
            return None
        name = self.vocabulary.describe(token)
        kinds = [kind.name for kind in Kind if self.table[state.phase, kind] != ILLEGAL]
        if self.kind_of[token] == Kind.PITCH and state.phase == Phase.BEAT:
            verb = "descend" if self.descending else "ascend"
            return f"{name} does not {verb}: the beat already has pitch {self._pitch(state)}"
        if self.kind_of[token] == Kind.BAR and self.bars:
            return f"{name} does not follow a tempo, and only there may a beat say its position in the bar"
        if self.table[state.phase, self.kind_of[token]] != ILLEGAL:
            return f"{name} leaves the cell of pitch {self._pitch(state)} all silent"
        return f"{name} found, expected one of {', '.join(kinds)}"

    def _pitch(self, state: State) -> int:
        """The last pitch of the beat."""
        return self.vocabulary.pitch - 1 - state.floor if self.descending else state.floor

    def first_problem(self, ids: ArrayLike) -> Problem | None:
        """The first ill-formed token of a sequence [T], None when it is a well-formed beginning of a piece."""
        state = self.start()
        for position, token in enumerate(np.asarray(ids).tolist()):
            problem = self._problem(state, token)
            if problem:
                return Problem(position, problem)
            state = self.advance(state, token)
        return None

    def is_complete(self, ids: ArrayLike) -> bool:
        """Whether a sequence [T] is a whole piece: well-formed from start to EOS."""
        state = self.start()
        for token in np.asarray(ids).tolist():
            if self._problem(state, token):
                return False
            state = self.advance(state, token)
        return state.phase == Phase.ENDED
