"""The grammar of token sequences: one table that the validator, the decoder, the sampler and the tests read.

    [BOS]  tempo  bar?  (pitch codes velocity)*  tempo  bar?  (pitch codes velocity)*  …  [EOS]
    codes  :=  L1  |  half half        half  :=  L2  |  quarter quarter        quarter  :=  L3  |  L4 L4

A state is a phase (a row of the table), the pitch floor (the last pitch of the beat) and whether the cell sounds yet.

Four options of the tokenizer bend it. Only with bars has the table a place for a beat's position in its bar. Cells
without a strike may go without their velocity token, and pitches may descend: both are read off the state. And what
sounds on over a beat line may be told by codes alone,

    beat  :=  tempo  bar?  (codes velocity?)*  (pitch codes velocity)*

a slot of codes for every pitch that sounds at the end of the beat before, in the order of pitches; all-silent codes say
that it ended there. The state then holds these pitches as bit masks. With ages a slot says first how long its pitch has
sounded, and which it is:

    slot  :=  age pitch codes velocity?

Both follow from what has been told, so that only one id may come in either place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.music.beats import FRAMES
from pianolm.tokenizer.ages import LONGEST_FRAMES, age_numbers, shortest_frames
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind, Vocabulary

ILLEGAL = -1
AGE_BITS = LONGEST_FRAMES.bit_length()
_AGE_MASK = (1 << AGE_BITS) - 1


class Phase(IntEnum):
    """Rows of the table: what has been read so far. `CODES + n`: a pitch, then codes for n eighths of the beat."""

    START = 0
    OPENED = 1  # after BOS
    BEAT = 2  # after a tempo, its bar or a whole cell
    CODES = 3  # 3 … 10: zero to seven eighths filled
    VELOCITY = 11  # all eight filled, velocity wanted
    ENDED = 12  # after EOS
    TEMPO = 13  # after a tempo where a bar may come; without bars that is BEAT
    AGED = 14  # after an age: the pitch of its slot is wanted


N_PHASES = 15


def transition_table(
    velocity: bool, bars: bool = False, slots: bool = False, ages: bool = False
) -> NDArray[np.int8]:
    """[phase, kind] → next phase, or ILLEGAL.

    A code that fills n eighths may stand only where a multiple of n is filled: halves and quarters are never split
    by a coarser code. With slots, codes may open a cell without a pitch before them, or with ages an age may, and then
    a pitch; the state says whether they do.
    """
    table = np.full((N_PHASES, len(Kind)), ILLEGAL, np.int8)
    table[Phase.START, Kind.BOS] = Phase.OPENED
    table[[Phase.START, Phase.OPENED, Phase.BEAT], Kind.TEMPO] = Phase.TEMPO if bars else Phase.BEAT
    table[Phase.BEAT, Kind.PITCH] = Phase.CODES
    table[Phase.BEAT, Kind.EOS] = Phase.ENDED
    table[Phase.ENDED, Kind.PAD] = Phase.ENDED
    done = Phase.VELOCITY if velocity else Phase.BEAT
    for kind in CODE_KINDS:
        for filled in range(0, 8, EIGHTHS_OF_KIND[kind]):
            after = filled + EIGHTHS_OF_KIND[kind]
            table[Phase.CODES + filled, kind] = done if after == 8 else Phase.CODES + after
    if velocity:
        table[Phase.VELOCITY, Kind.VELOCITY] = Phase.BEAT
    if ages:
        table[Phase.BEAT, Kind.AGE] = Phase.AGED
        table[Phase.AGED, Kind.PITCH] = Phase.CODES
    elif slots:
        table[Phase.BEAT, list(CODE_KINDS)] = table[Phase.CODES, list(CODE_KINDS)]
    if bars:
        table[Phase.TEMPO] = table[Phase.BEAT]
        table[Phase.TEMPO, Kind.BAR] = Phase.BEAT
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
        due: Bits of the ranks whose slots are still to come in this beat; while one is open, its bit is the lowest.
            Without slots this mask and the next two stay 0.
        ringing: Bits of the ranks that sound at the end of the beat, as far as it has been told.
        told: Bits of the ranks that a slot of this beat has spoken of, unless it was all silent.
        ages: Where slots begin with an age, `AGE_BITS` a rank, the lowest rank first: frames since what is due, or
            rings, was struck, at the beat line that it sounds on over; `LONGEST_FRAMES` at most.
        since: The same of the slot or cell that is open, as far as its codes have come.
    """

    phase: int = Phase.START
    floor: int = -1
    sounding: bool = False
    struck: bool = False
    due: int = 0
    ringing: int = 0
    told: int = 0
    ages: int = 0
    since: int = 0

    @property
    def between_cells(self) -> bool:
        """Whether a beat has begun and all that was begun in it is whole, so that the next beat may begin."""
        return self.phase in BETWEEN_CELLS and not self.due


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
        rings: [V] bool, the codes that sound in their last frame, where what sounds on over a beat line is told in
            slots; None where it is told as cells.
        since_strike: [V] frames from the last strike of a code to its end, −1 where it has none, where slots begin with
            an age; None where they do not.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        velocity: bool,
        silent: NDArray[np.bool_],
        strikes: NDArray[np.bool_] | None = None,
        descending: bool = False,
        bars: bool = False,
        rings: NDArray[np.bool_] | None = None,
        since_strike: NDArray[np.int64] | None = None,
    ) -> None:
        assert silent.shape == (vocabulary.size,), "one flag an id"
        assert since_strike is None or rings is not None, "ages are of slots"
        self.vocabulary = vocabulary
        self.velocity = velocity
        self.silent = silent
        self.strikes = strikes if velocity else None
        self.descending = descending
        self.bars = bars
        self.rings = rings
        self.since_strike = since_strike
        self.ages = since_strike is not None
        self.table = transition_table(velocity, bars, slots=rings is not None, ages=self.ages)
        self.kind_of = vocabulary.kind_of
        self.pitch_of = np.arange(vocabulary.size) - vocabulary.offset(Kind.PITCH)
        self.rank_of = vocabulary.pitch - 1 - self.pitch_of if descending else self.pitch_of
        is_code = np.isin(self.kind_of, [int(kind) for kind in CODE_KINDS])
        self._completes = {  # codes that would complete a cell from this phase; silent ones may not if all was silent
            phase: self._allowed_kinds(phase) & is_code & self._fills_up(phase)
            for phase in range(Phase.CODES, Phase.CODES + 8)
        }
        self._by_phase = [self._allowed_kinds(phase) for phase in range(N_PHASES)]
        self._is_code = is_code
        self._is_pitch = self.kind_of == Kind.PITCH
        is_age = self.kind_of == Kind.AGE
        self._opens_slot = is_age if self.ages else is_code
        self._is_bar = self.kind_of == Kind.BAR
        self._but_told: dict[State, NDArray[np.bool_]] = {}
        self._since_strike: list[int] = []
        if since_strike is not None and rings is not None:
            self._since_strike = np.where(
                rings, since_strike, 0
            ).tolist()  # what does not ring is told of no further
        eighths = np.array([EIGHTHS_OF_KIND.get(kind, 0) for kind in Kind])
        self._frames: list[int] = (eighths[self.kind_of] * (FRAMES // 8)).tolist()
        self._number_of_age: list[int] = age_numbers(np.arange(LONGEST_FRAMES + 1)).tolist()

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
        ids = self._allowed_but_told(state)
        return ids & ~self.told_ids(state) if state.told and state.phase in BETWEEN_CELLS else ids

    def allows(self, state: State, token: int) -> bool:
        """Whether one token may come next; any whole number may be asked about."""
        if not 0 <= token < self.vocabulary.size or not self._allowed_but_told(state)[token]:
            return False
        return not (state.told and self._is_pitch[token] and state.told >> int(self.rank_of[token]) & 1)

    def told_ids(self, state: State) -> NDArray[np.bool_]:
        """[V] the pitches that may not come because a slot of the beat has spoken of them."""
        told = np.unpackbits(np.frombuffer(state.told.to_bytes(16, "little"), np.uint8), bitorder="little")
        ids = np.zeros(self.vocabulary.size, bool)
        ids[self._is_pitch] = told[self.rank_of[self._is_pitch]]
        return ids

    def seen(self, state: State) -> State:
        """All of a state that the ids which may come depend on, but for what slots have spoken of."""
        if state.phase == Phase.AGED:
            return State(state.phase, due=state.due & -state.due)
        floor = state.floor if state.phase == Phase.BEAT else -1  # elsewhere it does not matter
        awaits_age = self.ages and state.due > 0 and state.phase in BETWEEN_CELLS
        age = shortest_frames(self.age(state)) if awaits_age else 0
        return State(state.phase, floor, state.sounding, due=int(state.due > 0), ages=age)

    def age(self, state: State) -> int:
        """Number of the age with which the slot that is due next begins."""
        return self._number_of_age[self._age_frames(state)]

    def _age_frames(self, state: State) -> int:
        return state.ages >> self._rank_due(state) * AGE_BITS & _AGE_MASK

    @staticmethod
    def _rank_due(state: State) -> int:
        """The lowest that is due."""
        return (state.due & -state.due).bit_length() - 1

    def _allowed_but_told(self, state: State) -> NDArray[np.bool_]:
        """[V] the ids that may come next, were it not for what slots have spoken of; kept, as few states differ so."""
        if self.rings is None:
            return self._allowed(state)
        seen = self.seen(state)
        if seen not in self._but_told:
            self._but_told[seen] = self._allowed(seen)
        return self._but_told[seen]

    def _allowed(self, state: State) -> NDArray[np.bool_]:
        ids = self._by_phase[state.phase]
        if self.rings is not None and state.phase in BETWEEN_CELLS:
            if state.due:
                opens = self._opens_slot
                if self.ages:
                    opens = np.zeros_like(opens)
                    opens[self.vocabulary.offset(Kind.AGE) + self.age(state)] = True
                return ids & (opens | self._is_bar)
            ids = ids & ~self._opens_slot
        if state.phase == Phase.AGED:
            return ids & (self.rank_of == self._rank_due(state))
        if state.phase == Phase.BEAT and state.floor >= 0:
            return ids & (~self._is_pitch | (self.rank_of > state.floor))
        if Phase.CODES <= state.phase < Phase.VELOCITY and not state.sounding and not state.due:
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
        return self.after(state, token)

    def after(self, state: State, token: int) -> State:
        """The state after a token that is known to be allowed."""
        kind = int(self.kind_of[token])
        phase = int(self.table[state.phase, kind])
        if self._is_code[token]:
            return self._after_code(state, token, phase)
        if kind == Kind.TEMPO:
            return State(phase, due=state.ringing, ages=state.ages)
        names = kind == Kind.PITCH and state.phase != Phase.AGED
        floor = int(self.rank_of[token]) if names else state.floor
        since = self._age_frames(state) if phase == Phase.CODES and not names else 0
        return State(phase, floor, False, False, state.due, state.ringing, state.told, state.ages, since)

    def _after_code(self, state: State, token: int, phase: int) -> State:
        sounding, struck = state.sounding or not bool(self.silent[token]), False
        whole = not Phase.CODES <= phase < Phase.VELOCITY
        slots = state.due, state.ringing, state.told, state.ages, self._since(state, token)
        if self.rings is not None and whole:
            slots = self._told(state, sounding, bool(self.rings[token]), slots[-1])
            sounding = False
        if self.strikes is not None:
            struck = state.struck or bool(self.strikes[token])
            if (
                phase == Phase.VELOCITY and not struck
            ):  # held all along: the velocity is that of the cell before
                return State(Phase.BEAT, state.floor, False, False, *slots)
        return State(phase, state.floor, sounding, struck, *slots)

    def _since(self, state: State, token: int) -> int:
        """Frames since the last strike at the end of a code: what sounds after silence is struck there."""
        if not self.ages:
            return 0
        own = self._since_strike[token]
        return own if own >= 0 else min(state.since + self._frames[token], LONGEST_FRAMES)

    def _told(self, state: State, sounding: bool, rings: bool, since: int) -> tuple[int, int, int, int, int]:
        """Due, ringing, told and ages after the last code of a slot or a cell, and that none is open."""
        slot = state.due & -state.due
        rank = slot or 1 << state.floor
        ages = state.ages
        if self.ages:
            at = (rank.bit_length() - 1) * AGE_BITS
            ages = ages & ~(_AGE_MASK << at) | (since if rings else 0) << at
        return (
            state.due ^ slot,
            state.ringing | (rank if rings else 0),
            state.told | (slot if sounding else 0),
            ages,
            0,
        )

    def _problem(self, state: State, token: int) -> str | None:
        if self.allows(state, token):
            return None
        if not 0 <= token < self.vocabulary.size:
            return f"{token} is not an id of this vocabulary (0–{self.vocabulary.size - 1})"
        name = self.vocabulary.describe(token)
        kinds = [kind.name for kind in Kind if self.table[state.phase, kind] != ILLEGAL]
        if state.phase in BETWEEN_CELLS and self.rings is not None:
            problem = self._slot_problem(state, token)
            if problem:
                return f"{name} {problem}"
        if self.kind_of[token] == Kind.PITCH and state.phase == Phase.BEAT:
            verb = "descend" if self.descending else "ascend"
            return f"{name} does not {verb}: the beat already has pitch {self.pitch(state)}"
        if state.phase == Phase.AGED:
            return f"{name} found, expected pitch {self.pitch(state)}, whose age came before"
        if self.kind_of[token] == Kind.BAR and self.bars:
            return f"{name} does not follow a tempo, and only there may a beat say its position in the bar"
        if self.table[state.phase, self.kind_of[token]] != ILLEGAL:
            return f"{name} leaves the cell of pitch {self.pitch(state)} all silent"
        return f"{name} found, expected one of {', '.join(kinds)}"

    def _slot_problem(self, state: State, token: int) -> str | None:
        """What is wrong with a token that may not stand where slots are due or have been told."""
        slot_kinds = (*CODE_KINDS, Kind.AGE) if self.ages else CODE_KINDS
        if state.due and self.kind_of[token] in (Kind.PITCH, Kind.TEMPO, Kind.EOS, *slot_kinds):
            age = f"age {self.age(state)} and " if self.ages else ""
            return f"found, expected {age}codes for pitch {self.pitch(state)}, which sounds on from the beat before"
        if not state.due and self.kind_of[token] in slot_kinds:
            return (
                "follows no pitch, and no pitch that sounds on from the beat before is left without its codes"
            )
        if self._is_pitch[token] and state.told >> int(self.rank_of[token]) & 1:
            return "sounds on from the beat before, and its codes have been told"
        return None

    def _pitch_of_rank(self, rank: int) -> int:
        return self.vocabulary.pitch - 1 - rank if self.descending else rank

    def pitch(self, state: State) -> int:
        """The pitch whose slot is open or due next; where none is, the last one of the beat."""
        return self._pitch_of_rank(self._rank_due(state) if state.due else state.floor)

    def first_problem(self, ids: ArrayLike) -> Problem | None:
        """The first ill-formed token of a sequence [T], None when it is a well-formed beginning of a piece."""
        state = self.start()
        for position, token in enumerate(np.asarray(ids).tolist()):
            problem = self._problem(state, token)
            if problem:
                return Problem(position, problem)
            state = self.after(state, token)
        return None

    def is_complete(self, ids: ArrayLike) -> bool:
        """Whether a sequence [T] is a whole piece: well-formed from start to EOS."""
        state = self.start()
        for token in np.asarray(ids).tolist():
            if not self.allows(state, token):
                return False
            state = self.after(state, token)
        return state.phase == Phase.ENDED
