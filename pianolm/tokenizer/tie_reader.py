"""Reads sequences with implicit or explicit ties token by token, whatever the tokens are.

Shapes: T tokens, C cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import WITH_TIES, Phase
from pianolm.tokenizer.vocabulary import EIGHTHS_BY_KIND, Kind

# Plain numbers: a look-up of an enum member costs more than a step of reading.
_TEMPO, _BAR, _PITCH, _DURATION = int(Kind.TEMPO), int(Kind.BAR), int(Kind.PITCH), int(Kind.DURATION)
_BEAT, _TIES = int(Phase.BEAT), int(Phase.TIES)
_BETWEEN_CELLS = frozenset(int(phase) for pair in WITH_TIES.items() for phase in pair)
_EIGHTHS: list[int] = EIGHTHS_BY_KIND.tolist()
_NO_CODES = [-1] * 8


class TieReading(NamedTuple):
    """Complete cells and tied cells, in the order of their tokens.

    Attributes:
        beat: [C] beat of each.
        pitch: [C] pitch of each.
        tied: [C] bool, whether it is a tied cell.
        last: [C] position of its last token.
        code_ids: [C, 8] its codes in the layout of `Codebook.encode`.
        used: Number of tokens of these cells, of tempi and of bars that stand where the grammar allows them.
        missing: Number of tied cells that were pending and did not come, and of duration bins that other tied cells
            lacked.
    """

    beat: NDArray[np.int64]
    pitch: NDArray[np.int64]
    tied: NDArray[np.bool_]
    last: NDArray[np.int64]
    code_ids: NDArray[np.int64]
    used: int
    missing: int


class TieReader:
    """Walks the grammar and leaves out tokens that it does not allow.

    A token that is not allowed breaks off the open cell, which is left out; the note of a tied cell then ends at the
    beat line. A tempo, or a pitch that is not pending, also gives up all pending ties: their notes end there, too, and
    they count as missing. If the token is not allowed even then, it is left out itself.

    The duration bin and the pitch of an explicit tie follow from the tokens before. So a wrong or missing bin costs
    nothing but itself: the pitch of any pending tie opens its tied cell, and the ties before it are missing. A duration
    bin is left out together with its pitch where that pitch is not pending.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar, self._state = grammar, grammar.start()
        self._explicit = grammar.ties == "explicit"
        self._before_cell: State | None = None  # the state before the open cell
        self._codes, self._filled, self._first = _NO_CODES.copy(), 0, 0  # of the open cell
        self._rows: list[tuple[int, ...]] = []
        self._beat, self._used, self._missing = -1, 0, 0
        self._duration: int | None = None  # the token before, if it is a duration bin

    def read(self, tokens: Sequence[int], kinds: Sequence[int]) -> TieReading:
        """Reads any ids [T] of these kinds; a kind below 0 marks tokens to leave out."""
        for position, token in enumerate(tokens):
            self._take(position, token, kinds[position])
        self._break_off(_TEMPO)
        rows = np.array(self._rows, np.int64).reshape(-1, 12)
        beat, pitch, tied, last = rows[:, :4].T
        return TieReading(beat, pitch, tied == 1, last, rows[:, 4:], self._used, self._missing)

    def _take(self, position: int, token: int, kind: int) -> None:
        """Reads one token."""
        grammar = self._grammar
        duration, self._duration = self._duration, None
        if self._explicit and kind == _DURATION:
            self._break_off(kind)
            self._duration = token
            return
        if self._explicit and kind == _PITCH and self._open_tie(position, token, duration):
            return
        if kind < 0 or not grammar.allows(self._state, token):
            self._break_off(kind)
            if kind < 0 or not grammar.allows(self._state, token):
                return
        state = grammar.after(self._state, token)
        eighths = _EIGHTHS[kind]
        if kind in (_TEMPO, _BAR):
            self._beat += kind == _TEMPO
            self._used += 1
        elif self._before_cell is None and (kind == _PITCH or eighths):
            self._open(position)
        if eighths:
            self._codes[self._filled] = token
            self._filled += eighths
        if self._before_cell is not None and state.phase in (_BEAT, _TIES):
            self._close(self._before_cell, state, position)
        self._state = state

    def _open_tie(self, position: int, token: int, duration: int | None) -> bool:
        """Opens the explicit tie of a pitch token, if it is pending; returns whether the token has been dealt with.

        Args:
            position: Position of the pitch token.
            token: The pitch token.
            duration: The duration bin before it, if there is one.
        """
        if self._before_cell is not None:
            self._break_off(_DURATION)
        pitch = token - self._grammar.vocabulary.offset(Kind.PITCH)
        ties = self._state.ties
        if not ties.pending >> pitch & 1:
            return duration is not None
        skipped = ties.pending & (1 << pitch) - 1
        self._missing += skipped.bit_count() + (duration is None)
        self._state = self._state._replace(phase=Phase.TIES, ties=ties.without_pending(skipped))
        expected = self._grammar.vocabulary.offset(Kind.DURATION) + self._grammar.duration_bin(self._state)
        self._open(position - (duration == expected))
        self._state = self._grammar.after(self._grammar.after(self._state, expected), token)
        return True

    def _open(self, position: int) -> None:
        """Opens a cell whose first used token stands at a position."""
        self._before_cell, self._first = self._state, position
        self._filled, self._codes = 0, _NO_CODES.copy()

    def _close(self, before: State, after: State, position: int) -> None:
        """Keeps the open cell, whose last token stands at a position."""
        tied = before.ties.pending != 0
        pitch = before.ties.pending_pitch if tied else after.last_pitch
        self._rows.append((self._beat, pitch, int(tied), position, *self._codes))
        self._used += position - self._first + 1
        self._before_cell = None

    def _break_off(self, kind: int) -> None:
        """Leaves out the open cell and, before a tempo or a pitch, all ties that are pending."""
        state = self._state
        ties = state.ties
        if self._before_cell is not None:
            state = self._before_cell
            ties = state.ties.without_pending(state.ties.pending & -state.ties.pending)
            self._before_cell = None
        if kind in (_TEMPO, _PITCH):
            self._missing += ties.pending.bit_count()
            ties = ties.without_pending(ties.pending)
        phase = state.phase
        if phase in _BETWEEN_CELLS:  # never TEMPO: a bar must follow its tempo directly
            phase = Phase.TIES if ties.pending else Phase.BEAT
        self._state = state._replace(phase=phase, ties=ties)
