"""The grammar of token sequences: one table that validator, decoder, sampler, masked loss and tests read.

    [BOS]  tempo  bar?  tie*  cell*  tempo  bar?  tie*  cell*  …  [EOS]
    cell   :=  pitch codes velocity
    codes  :=  L1  |  half half        half  :=  L2  |  quarter quarter        quarter  :=  L3  |  L4 L4

Options of the tokenizer change the table: `bar` exists only with `bars`, `L4` only with `exact`, and `velocity` only in
velocity mode. With `tuned` a tuning follows BOS, `[BOS] tuning tempo bar? …`; a window from the middle of a piece
begins with the tuning alone. Tied cells exist only with implicit and explicit ties, one for every pitch that sounds at
the end of the beat before (see `pianolm.tokenizer.ties`); in these layouts a velocity follows only codes that strike a
note:

    tie    :=  codes velocity?                    ties=implicit
    tie    :=  duration pitch codes velocity?     ties=explicit
    cell   :=  pitch codes velocity?              with either

With `fill` the table also has the marks of fill sequences, in which a gap's beats come last (`pianolm.tokenizer.fill`):

    [BOS] tuning? <gap> (pitch pitch)? gap <suffix> suffix <prefix> prefix <middle> middle [EOS]

Prefix and suffix may be empty, and an EOS may end the suffix. Gap, suffix and prefix begin without ties; the middle
goes on where the prefix ends, and its tempi and bars are those of the gap. Marks are given, not chosen: `allows` knows
them, and `allowed`, from which masks are made, leaves them out.

Where the vocabulary has ids for them, controls may precede the tempo of a beat: `loudness? density? tempo …`, outside
of ties that are pending. They say how the music from there on is (`pianolm.tokenizer.controls`). Like marks they are
given, not chosen.

A state is a phase (a row of the table) and what the table cannot express: the last pitch of the beat, since pitches
ascend; whether the open cell sounds and strikes a note; the ties; and the part of a fill sequence. Duration and pitch
of an explicit tie follow from the tokens before, so that exactly one id is allowed for each, as do tempi and bars of a
middle.

Shapes: V ids, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.music.beats import FRAMES
from pianolm.tokenizer.grammar_problem import token_problem
from pianolm.tokenizer.grammar_state import NO_FILL, Fill, Part, State, fill_after
from pianolm.tokenizer.grammar_table import BETWEEN_CELLS, ILLEGAL, WITH_TIES, Phase, transition_table
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, NO_TIES, Ties, duration_bins, shortest_frames
from pianolm.tokenizer.vocabulary import (
    CONTROLS,
    EIGHTHS_BY_KIND,
    FILL_MARKS,
    LEVELS,
    Kind,
    Vocabulary,
)

# Plain numbers: a look-up of an enum member costs more than a step of validation.
_TEMPO, _PITCH = int(Kind.TEMPO), int(Kind.PITCH)
_BEAT, _CODES, _VELOCITY = int(Phase.BEAT), int(Phase.CODES), int(Phase.VELOCITY)
_DURATION, _LOWEST = int(Phase.DURATION), int(Phase.LOWEST)
_WITH_TIES = {int(phase): int(pending) for phase, pending in WITH_TIES.items()}
_PENDING = frozenset(_WITH_TIES.values())
_CONTROLS = frozenset(map(int, CONTROLS))
_PART_OF = {int(kind): int(Part[kind.name]) for kind in FILL_MARKS}
_BAR = int(Kind.BAR)


class TieCodes(NamedTuple):
    """What a grammar with ties needs to know about the patterns of code ids; False or 0 for other ids.

    Attributes:
        strikes: [V] bool, whether the pattern strikes a note.
        sounds_to_end: [V] bool, whether it sounds in its last frame.
        frames_since_strike: [V] frames from its last strike to its end, −1 where it has none.
    """

    strikes: NDArray[np.bool_]
    sounds_to_end: NDArray[np.bool_]
    frames_since_strike: NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """The first ill-formed token of a sequence: its position, and a sentence."""

    position: int
    message: str


class Grammar:
    """The table for one vocabulary and one layout.

    Args:
        vocabulary: The ids.
        velocity: Whether cells carry velocity tokens.
        silent: [V] bool, the codes whose pattern is all silent.
        ties: `repeat`, `implicit` or `explicit`.
        bars: Whether a tempo may be followed by the beat's position in its bar.
        exact: Whether there are L4 codes.
        tie_codes: What ties need to know about codes; required unless `ties` is `repeat`.
        tuned: Whether a piece states the tuning of its tempo scale.
        fill: Whether the sequences may be fill sequences.

    Attributes:
        controls: Whether controls may occur: the three-level layout has no ids for them.
        table: [phase, kind], see `transition_table`.
        kinds: Kinds of token that occur in this layout, controls aside.
        strikes: [V] bool, the codes that strike a note, where a velocity follows only these; None where every cell has
            a velocity, or none has.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        velocity: bool,
        silent: NDArray[np.bool_],
        ties: str = "repeat",
        bars: bool = False,
        exact: bool = True,
        tie_codes: TieCodes | None = None,
        tuned: bool = False,
        fill: bool = False,
    ) -> None:
        assert silent.shape == (vocabulary.size,), "one flag an id"
        assert (tie_codes is not None) == (ties != "repeat"), "ties need to know about codes"
        self.vocabulary, self.velocity, self.silent = vocabulary, velocity, silent
        self.ties, self.bars, self.exact, self.tie_codes = ties, bars, exact, tie_codes
        self.tuned, self.fill = tuned, fill
        self.strikes = tie_codes.strikes if tie_codes is not None and velocity else None
        self.controls = exact and vocabulary.count(Kind.DENSITY) == LEVELS
        self.table = transition_table(velocity, ties, bars, exact, tuned, fill, self.controls)
        self.kinds = frozenset(
            kind for kind in Kind if kind not in CONTROLS and (self.table[:, kind] != ILLEGAL).any()
        )
        self.kind_of = vocabulary.kind_of
        self.pitch_of = np.arange(vocabulary.size) - vocabulary.offset(Kind.PITCH)
        is_mark = np.isin(self.kind_of, (*FILL_MARKS, *CONTROLS))
        self._by_phase = [(row != ILLEGAL)[self.kind_of] & ~is_mark for row in self.table]
        self._masks: dict[tuple[int, int, bool, int, int, Fill], NDArray[np.bool_]] = {}
        self._make_lists()

    def _make_lists(self) -> None:
        """Plain lists of what `after` looks up token by token: NumPy scalars are several times slower."""
        self._rows: list[list[int]] = self.table.tolist()
        self._kinds: list[int] = self.kind_of.tolist()
        self._eighths: list[int] = EIGHTHS_BY_KIND.tolist()
        self._silent: list[bool] = self.silent.tolist()
        self._strikes: list[bool] = [] if self.strikes is None else self.strikes.tolist()
        self._sounds_to_end: list[bool] = []
        self._since_strike: list[int] = []
        if self.tie_codes is not None:
            sounds_to_end = self.tie_codes.sounds_to_end
            self._sounds_to_end = sounds_to_end.tolist()
            self._since_strike = np.where(sounds_to_end, self.tie_codes.frames_since_strike, 0).tolist()
        self._explicit = self.ties == "explicit"
        self._bin_of_frames: list[int] = duration_bins(np.arange(MAX_TIE_FRAMES + 1)).tolist()
        self._key_frames = [shortest_frames(number) for number in self._bin_of_frames]

    def start(self) -> State:
        """The state before any token."""
        return State()

    def allowed(self, state: State) -> NDArray[np.bool_]:
        """[V] the ids that may be chosen next, which excludes marks and controls; not to be changed in place."""
        ids = self._mask(state)
        return ids & ~self.tied_pitch_ids(state) if self._excludes_tied(state) else ids

    def allows(self, state: State, token: int) -> bool:
        """Whether one token may come next, which may be any whole number."""
        if not 0 <= token < self.vocabulary.size:
            return False
        if self._kinds[token] in _PART_OF:
            return self._allows_mark(state, self._kinds[token])
        if self._kinds[token] in _CONTROLS:
            return state.fill.part == Part.PLAIN and self._rows[state.phase][self._kinds[token]] != ILLEGAL
        if not self._mask(state)[token]:
            return False
        if self._kinds[token] != _PITCH or not self._excludes_tied(state):
            return True
        return not state.ties.tied >> int(self.pitch_of[token]) & 1

    def _allows_mark(self, state: State, kind: int) -> bool:
        """Whether a mark of fill sequences may come next; each comes once, in order."""
        return state.fill.part == _PART_OF[kind] - 1 and self._rows[state.phase][kind] != ILLEGAL

    @staticmethod
    def _excludes_tied(state: State) -> bool:
        """Whether some pitches may not come because the beat has their tied cells."""
        return state.ties.tied != 0 and state.phase in BETWEEN_CELLS

    def tied_pitch_ids(self, state: State) -> NDArray[np.bool_]:
        """[V] the pitches whose tied cell of this beat was not all silent."""
        bits = np.frombuffer(state.ties.tied.to_bytes(16, "little"), np.uint8)
        ids = np.zeros(self.vocabulary.size, bool)
        ids[self.vocabulary.ids(Kind.PITCH)] = np.unpackbits(bits, bitorder="little")
        return ids

    def duration_bin(self, state: State) -> int:
        """Bin with which the next tied cell begins, where ties are explicit."""
        return self._bin_of_frames[state.ties.pending_frames]

    def mask_key(self, state: State) -> State:
        """A state of the same phase with the same mask, but for `tied_pitch_ids`; one for all states that share it."""
        phase, last_pitch, sounding, pending, frames, fill = self._key(state)
        return State(phase, last_pitch, sounding, ties=Ties(pending=pending, durations=frames), fill=fill)

    def _key(self, state: State) -> tuple[int, int, bool, int, int, Fill]:
        """`mask_key` as plain values: phase, last pitch, sounding, pending ties, their frames, and the fill."""
        phase, pending, fill = state.phase, state.ties.pending, state.fill
        if fill is not NO_FILL:
            fill = Fill(fill.part, fill.grid[:1], fill.bar) if fill.part == Part.MIDDLE else Fill(fill.part)
        if not pending:
            return phase, state.last_pitch if phase in (_BEAT, _LOWEST) else -1, state.sounding, 0, 0, fill
        if phase == _DURATION:
            return phase, -1, False, pending & -pending, 0, fill
        if self._explicit and phase in _PENDING:
            return phase, -1, False, 1, self._key_frames[state.ties.pending_frames], fill
        return phase, -1, state.sounding, 1, 0, fill

    def _mask(self, state: State) -> NDArray[np.bool_]:
        """[V] the ids that may come next, were it not for `tied_pitch_ids`. Few masks differ, so they are kept."""
        key = self._key(state)
        mask = self._masks.get(key)
        if mask is None:
            mask = self._masks[key] = self._make_mask(self.mask_key(state))
            mask.setflags(write=False)
        return mask

    def _make_mask(self, state: State) -> NDArray[np.bool_]:
        ids = self._by_phase[state.phase].copy()
        is_pitch = self.vocabulary.ids(Kind.PITCH)
        if state.phase in _PENDING and self._explicit:
            durations = self.vocabulary.ids(Kind.DURATION)
            ids[durations] = np.arange(durations.stop - durations.start) == self.duration_bin(state)
        elif state.phase == Phase.DURATION:
            ids[is_pitch] = np.arange(self.vocabulary.pitch) == state.pitch
        elif state.phase == Phase.BEAT:
            ids[is_pitch] = np.arange(self.vocabulary.pitch) > state.last_pitch
        elif state.phase == Phase.LOWEST:
            ids[is_pitch] = np.arange(self.vocabulary.pitch) >= state.last_pitch
        elif Phase.CODES <= state.phase < Phase.VELOCITY and not (state.sounding or state.ties.pending):
            after = self.table[state.phase][self.kind_of]
            completes = (after == Phase.VELOCITY) | (after == Phase.BEAT)
            ids[completes & self.silent] = False
        self._restrict_fill(ids, state)
        return ids

    def _restrict_fill(self, ids: NDArray[np.bool_], state: State) -> None:
        """Takes out of a mask [V] what the part of a fill sequence forbids."""
        fill, tempo, bar = state.fill, self.vocabulary.ids(Kind.TEMPO), self.vocabulary.ids(Kind.BAR)
        if fill.part in (Part.GAP, Part.PREFIX):
            ids[self.vocabulary.eos] = False
        elif fill.part == Part.MIDDLE:
            ids[tempo] &= np.arange(tempo.start, tempo.stop) == (fill.grid[0][0] if fill.grid else -1)
            ids[self.vocabulary.eos] &= not fill.grid
            ids[bar] &= np.arange(bar.start, bar.stop) == fill.bar
            if fill.bar >= 0 and state.phase in (Phase.TEMPO, Phase.TEMPO_TIES):
                ids[: bar.start] = ids[bar.stop :] = False

    def advance(self, state: State, token: int) -> State:
        """The state after one more token, which must be allowed.

        Raises:
            ValueError: The token is not allowed there.
        """
        if not self.allows(state, token):
            raise ValueError(token_problem(self, state, token))
        return self.after(state, token)

    def after(self, state: State, token: int) -> State:
        """The state after a token that is known to be allowed."""
        kind, ties, last_pitch, fill = self._kinds[token], state.ties, state.last_pitch, state.fill
        phase = self._rows[state.phase][kind]
        if self._eighths[kind]:
            return self._after_code(state, token, phase)
        if kind in _PART_OF:
            part = _PART_OF[kind]
            return State(phase, ties=ties if part == Part.MIDDLE else NO_TIES, fill=fill._replace(part=part))
        if fill is not NO_FILL and kind in (_TEMPO, _BAR):
            fill = fill_after(fill, token, kind)
        if kind == _TEMPO:
            ties, last_pitch = ties.next_beat(), -1
        elif kind == _PITCH and state.phase == _DURATION:
            ties = ties._replace(open_frames=ties.pending_frames)
        elif kind == _PITCH:
            last_pitch = int(self.pitch_of[token])
        if ties.pending:
            phase = _WITH_TIES.get(phase, phase)
        return State(phase, last_pitch, False, False, ties, fill)

    def _after_code(self, state: State, token: int, phase: int) -> State:
        """The state after a code, `phase` being what the table says."""
        ties = state.ties
        sounding = state.sounding or not self._silent[token]
        struck = self.strikes is not None and (state.struck or self._strikes[token])
        if self._explicit:
            frames = self._eighths[self._kinds[token]] * FRAMES // 8
            ties = ties.after_code(frames, self._since_strike[token])
        if _CODES <= phase < _VELOCITY:
            return State(phase, state.last_pitch, sounding, struck, ties, state.fill)
        if self.ties != "repeat":
            ties = ties.after_cell(state.last_pitch, sounding, self._sounds_to_end[token])
        if self.strikes is not None and not struck:
            phase = _BEAT  # no velocity: what sounds keeps that of its strike
        if ties.pending:
            phase = _WITH_TIES.get(phase, phase)
        return State(phase, state.last_pitch, False, False, ties, state.fill)

    def first_problem(self, ids: ArrayLike) -> Problem | None:
        """The first ill-formed token of a sequence [T]; None where it is the well-formed beginning of a piece."""
        state = self.start()
        for position, token in enumerate(np.asarray(ids).tolist()):
            if not self.allows(state, token):
                return Problem(position, token_problem(self, state, token))
            state = self.after(state, token)
        return None

    def is_complete(self, ids: ArrayLike) -> bool:
        """Whether a sequence [T] is a whole piece: well-formed from start to EOS, with its middle if it has a gap."""
        state = self.start()
        for token in np.asarray(ids).tolist():
            if not self.allows(state, token):
                return False
            state = self.after(state, token)
        return state.phase == Phase.ENDED and state.fill.part in (Part.PLAIN, Part.MIDDLE)
