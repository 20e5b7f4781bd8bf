"""What sounds on over a beat line, told by codes (`tokenizer.held=codes|ages`): cells to slots and back.

A beat begins with one slot of codes for every pitch that sounds at the end of the beat before; the pitch is known from
there. What the codes of a slot say is the cell of that pitch in this beat if it begins held, later strikes included; if
it does not, or if there is none, the slot is all silent. All other cells follow with their pitch. With `held=ages` a
slot says first how long ago its pitch was struck, and which it is; that follows from what stands before, but a model
does not have to work it out.

Shapes: C cells, R rows, which are slots and cells in the order of their tokens; T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells
from pianolm.tokenizer.ages import LONGEST_FRAMES
from pianolm.tokenizer.codebook import Codebook, Patterns, frames_since_strike
from pianolm.tokenizer.grammar import Grammar, Phase, State
from pianolm.tokenizer.vocabulary import EIGHTHS_OF_KIND, Kind

_ONE = np.uint64(1)
_TEMPO, _BAR, _PITCH, _BEAT = int(Kind.TEMPO), int(Kind.BAR), int(Kind.PITCH), int(Phase.BEAT)
_AGE = int(Kind.AGE)
_EIGHTHS = [EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind]
_NO_CODES = [-1] * 8


class Rows(NamedTuple):
    """Slots and cells in the order of their tokens.

    Attributes:
        cell: [R] which cell each row tells, −1 for a slot that is all silent.
        beat: [R] of each row.
        pitch: [R] of each row.
        age: [R] frames since the pitch was struck, at the beat line, `LONGEST_FRAMES` where it is longer; −1 for what
            is no slot.
    """

    cell: NDArray[np.int64]
    beat: NDArray[np.int64]
    pitch: NDArray[np.int64]
    age: NDArray[np.int64]


def slots_and_cells(cells: Cells, said: Patterns, descending: bool) -> Rows:
    """The rows that tell some cells.

    Args:
        cells: C cells.
        said: [C] the patterns that their codes say; they decide what sounds on, as who reads knows no others.
        descending: Whether pitches fall within a beat.
    """
    key = cells.beat.astype(np.int64) << 7 | cells.pitch
    due = key[said.sustain >> np.uint64(FRAMES - 1) & _ONE == _ONE] + 128
    due = due[due < cells.n_beats << 7]
    begins_held = cells.sustain & ~cells.onset & _ONE == _ONE
    at = np.searchsorted(due, key)
    sounds_on = begins_held & (np.append(due, -1)[at] == key)
    ended = np.ones(due.size, bool)
    ended[at[sounds_on]] = False
    cell = np.concatenate([np.arange(key.size), np.full(int(ended.sum()), -1)])
    named = np.concatenate([~sounds_on, np.zeros(int(ended.sum()), bool)])
    key = np.concatenate([key, due[ended]])
    beat, pitch = key >> 7, key & 127
    since = np.concatenate(
        [frames_since_strike(said.onset, FRAMES), np.full(cell.size - cells.beat.size, -1)]
    )
    in_time = np.lexsort(
        (named, beat, pitch)
    )  # by pitch; a slot may be silent, and its pitch be struck in the beat
    since = np.where(named & (since < 0), FRAMES, since)
    age = np.where(named, -1, _ages(beat, since, in_time))
    order = np.argsort((beat << 8) | named << 7 | (127 - pitch if descending else pitch), kind="stable")
    return Rows(cell[order], beat[order], pitch[order], age[order])


def _ages(beat: NDArray[np.int64], since: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """[R] frames since the pitch of a row was struck in a row before, at the beginning of its beat.

    Args:
        beat: [R] of each row.
        since: [R] frames from the last strike of a row to its end, −1 where it has none.
        order: [R] the rows of each pitch in the order of time.
    """
    struck = np.maximum.accumulate(np.where(since[order] >= 0, np.arange(order.size), 0))
    last = order[np.concatenate([[0], struck])[:-1]]  # a row without one before it is no slot
    ages = np.empty(order.size, np.int64)
    ages[order] = since[last] + FRAMES * (beat[order] - beat[last] - 1)
    return np.minimum(ages, LONGEST_FRAMES)


def silent_codes(codebook: Codebook) -> NDArray[np.int32]:
    """[8] codes of a slot that is all silent, as `Codebook.encode` lays them: two halves."""
    codes = np.full(8, -1, np.int32)
    halves = codebook.silent_ids & (codebook.vocabulary.kind_of == Kind.L2)
    codes[[0, 4]] = np.flatnonzero(halves)[0]
    return codes


class Read(NamedTuple):
    """What has been read.

    Attributes:
        beat: [R] of each row that is whole.
        rank: [R] of its pitch in the order of pitches.
        own: [R] bool, whether it is a cell of its own and no slot.
        last: [R] where its last token stands.
        code_ids: [R, 8] as `Codebook.encode` lays them.
        used: Tokens of rows, tempi and bars that are in place.
        missing: Slots that were due and did not come, and ages of others that did not.
    """

    beat: NDArray[np.int64]
    rank: NDArray[np.int64]
    own: NDArray[np.bool_]
    last: NDArray[np.int64]
    code_ids: NDArray[np.int64]
    used: int
    missing: int


class SlotReader:
    """Reads tokens one by one along the grammar.

    A token that may not come breaks off the slot or cell that is open, which is left out; where it was a slot, its note
    ends at the beat line. A tempo or a pitch also ends waiting for slots that are due: their notes end there, too, and
    they count as missing. If the token may not come even so, it is left out.

    An age says nothing that is not known, so that one which is wrong or missing costs no more than itself: while slots
    are due, the pitch of one of them begins it. Those before it are missing. An age of a pitch that is not due is left
    out with the pitch.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar, self._state = grammar, grammar.start()
        self._before: State | None = None  # of the slot or cell that is open
        self._codes, self._filled, self._began = _NO_CODES.copy(), 0, 0
        self._rows: list[tuple[int, ...]] = []
        self._beat, self._used, self._missing = -1, 0, 0
        self._age: int | None = None  # which has just been read

    def read(self, tokens: Sequence[int], kinds: Sequence[int]) -> Read:
        """Reads a sequence of ids [T], whatever they are; kinds below 0 are left out."""
        for at, token in enumerate(tokens):
            self._take(at, token, kinds[at])
        self._give_up(_TEMPO)
        rows = np.array(self._rows, np.int64).reshape(-1, 12)
        beat, rank, own, last = rows[:, :4].T
        return Read(beat, rank, own == 1, last, rows[:, 4:], self._used, self._missing)

    def _take(self, at: int, token: int, kind: int) -> None:
        grammar = self._grammar
        age, self._age = self._age, None
        if grammar.ages and kind == _AGE:
            self._give_up(kind)
            self._age = token
            return
        if grammar.ages and kind == _PITCH and self._open_slot(at, token, age):
            return
        if kind < 0 or not grammar.allows(self._state, token):
            self._give_up(kind)
            if kind < 0 or not grammar.allows(self._state, token):
                return
        state = grammar.after(self._state, token)
        eighths = _EIGHTHS[kind]
        if kind in (_TEMPO, _BAR):
            self._beat += kind == _TEMPO
            self._used += 1
        elif self._before is None and (kind == _PITCH or eighths):
            self._begin(at)
        if eighths:
            self._codes[self._filled] = token
            self._filled += eighths
        if self._before is not None and state.phase == _BEAT:
            self._close(self._before, state, at)
        self._state = state

    def _open_slot(self, at: int, pitch: int, age: int | None) -> bool:
        """Opens the slot of a pitch token if it is due; whether the token needs no more looking at.

        Args:
            at: Where it stands.
            pitch: The token.
            age: The token before it, if that is an age.
        """
        if self._before is not None:
            self._give_up(_AGE)
        rank = int(self._grammar.rank_of[pitch])
        if not self._state.due >> rank & 1:
            return age is not None
        before_it = self._state.due & (1 << rank) - 1
        self._missing += before_it.bit_count() + (age is None)
        self._state = self._state._replace(due=self._state.due ^ before_it, phase=Phase.BEAT)
        expected = self._grammar.vocabulary.offset(Kind.AGE) + self._grammar.age(self._state)
        self._begin(at - (age == expected))
        self._state = self._grammar.after(self._grammar.after(self._state, expected), pitch)
        return True

    def _begin(self, at: int) -> None:
        """Opens a slot or a cell whose first token that counts stands there."""
        self._before, self._began, self._filled, self._codes = self._state, at, 0, _NO_CODES.copy()

    def _close(self, before: State, after: State, at: int) -> None:
        """Keeps the slot or cell that is open."""
        rank = (before.due & -before.due).bit_length() - 1 if before.due else after.floor
        self._rows.append((self._beat, rank, int(not before.due), at, *self._codes))
        self._used += at - self._began + 1
        self._before = None

    def _give_up(self, kind: int) -> None:
        """Breaks off what is open and, before a tempo or a pitch, all that is due."""
        state = self._state
        if self._before is not None:
            state = self._before._replace(due=self._before.due & (self._before.due - 1))
            self._before = None
        if state.phase == Phase.TEMPO:  # a bar stands directly behind its tempo
            state = state._replace(phase=Phase.BEAT)
        if kind in (_TEMPO, _PITCH):
            self._missing += state.due.bit_count()
            state = state._replace(due=0)
        self._state = state
