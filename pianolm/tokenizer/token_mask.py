"""Token masks: sets of ids that the grammar allows, for evaluation, sampling and the constrained loss.

`token_masks` walks a whole sequence and gives the mask of every token. `window_masks` derives from the grammar's table
what a window of a sequence shows of them, for a loss that sees windows only.

Shapes: T tokens, V ids, M distinct masks, P bytes that hold V bits, K kinds of token.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import ILLEGAL, N_PHASES, WITH_TIES, Phase
from pianolm.tokenizer.ties import Ties, shortest_frames
from pianolm.tokenizer.vocabulary import Kind


class TokenMasks(NamedTuple):
    """The mask of every token of a sequence, equal ones stored once.

    Attributes:
        row: [T] row of `packed` that holds the mask of each token: the ids among which it was chosen.
        packed: [M, P] masks as `numpy.packbits` packs them.
    """

    row: NDArray[np.int64]
    packed: NDArray[np.uint8]

    @classmethod
    def from_masks(cls, masks: Iterable[NDArray[np.bool_]]) -> TokenMasks:
        """Packs the masks [V] of all tokens."""
        rows: dict[bytes, int] = {}
        row = [rows.setdefault(np.packbits(mask).tobytes(), len(rows)) for mask in masks]
        return cls(np.array(row, np.int64), np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1))


def unpack_masks(packed_nP: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """[n, V] bool of packed masks, V = `size`."""
    bits: NDArray[np.bool_] = np.unpackbits(packed_nP, axis=1, count=size).view(bool)
    return bits


def token_masks(grammar: Grammar, ids: NDArray[np.int64]) -> TokenMasks:
    """The masks of a well-formed sequence [T].

    Raises:
        ValueError: A token is not allowed where it stands.
    """
    cache: dict[tuple[State, int], NDArray[np.bool_]] = {}

    def masks() -> Iterable[NDArray[np.bool_]]:
        state = grammar.start()
        for token in ids.tolist():
            key = grammar.mask_key(state), state.ties.tied
            if key not in cache:
                cache[key] = grammar.allowed(state)
            if not cache[key][token]:
                grammar.advance(state, token)  # raises with the reason
            yield cache[key]
            state = grammar.after(state, token)

    return TokenMasks.from_masks(masks())


class WindowMasks(NamedTuple):
    """Masks of the targets of a window, found from the tokens around each target.

    The phase before a target follows from the kinds of input and target and the eighths that the open cell has filled.
    Most phases have one mask. `BEAT` has one for each last pitch of the beat, from −1 on; with explicit ties, phases
    with a pending tie have one for each duration bin, and `DURATION` has one for each pitch.

    A window does not show what sounds on from before it, nor whether the open cell has been silent so far. So a mask
    may hold pitches that have had a tied cell, and codes that leave a cell all silent.

    Attributes:
        masks: [M, V] bool. The first allows every id; the last is that of a bar whose next token is unknown.
        phase: [K, 8, K] phase before a target, by kind of input, eighths that the open cell has filled, and kind of
            target; −1 where the table has no such neighbours. Before a bar it is `TEMPO`, with ties or without.
        first: [N_PHASES] index in `masks` of the first mask of each phase.
    """

    masks: NDArray[np.bool_]
    phase: NDArray[np.int64]
    first: NDArray[np.int64]


ANY_ID = 0
"""Index in `WindowMasks.masks` of the mask that allows every id."""


def window_masks(grammar: Grammar) -> WindowMasks:
    """Derives the masks of windows from a grammar's table."""
    families = [
        [grammar.allowed(state) for state in _states_of_phase(grammar, phase)] for phase in range(N_PHASES)
    ]
    any_id = np.ones(grammar.vocabulary.size, bool)
    bar = np.logical_or.reduce([*families[Phase.TEMPO], *families[Phase.TEMPO_TIES]])
    masks = np.stack([any_id, *chain.from_iterable(families), bar])
    first = np.cumsum([1, *map(len, families)])[:-1]
    return WindowMasks(masks, _phases_between(grammar), first)


def _states_of_phase(grammar: Grammar, phase: int) -> list[State]:
    """States whose masks are those of a phase, in the order of their indices."""
    explicit, pitches = grammar.ties == "explicit", range(grammar.vocabulary.pitch)
    if phase == Phase.BEAT:
        return [State(phase, last_pitch) for last_pitch in (-1, *pitches)]
    if phase == Phase.DURATION and explicit:
        return [State(phase, ties=Ties(pending=1 << pitch)) for pitch in pitches]
    if phase in WITH_TIES.values():
        bins = range(grammar.vocabulary.count(Kind.DURATION)) if explicit else range(1)
        return [
            State(phase, ties=Ties(pending=1, durations=shortest_frames(number) if explicit else 0))
            for number in bins
        ]
    return [State(phase, sounding=True)]


def _phases_between(grammar: Grammar) -> NDArray[np.int64]:
    """`WindowMasks.phase`: every pair of neighbouring transitions in the table, by their kinds."""
    table = grammar.table
    phases = np.full((len(Kind), 8, len(Kind)), -1)
    for before, kind in np.argwhere(table != ILLEGAL).tolist():
        for phase in _possible_phases(grammar, int(table[before, kind])):
            filled = phase - Phase.CODES if Phase.CODES <= phase < Phase.VELOCITY else 0
            after = np.flatnonzero(table[phase] != ILLEGAL)
            unknown = after[phases[kind, filled, after] < 0]
            phases[kind, filled, unknown] = phase
    phases[Kind.EOS] = -1  # behind EOS another piece may begin, of which the table says nothing
    # where eighths filled are not known, the kinds alone tell that the cell was complete
    return np.where(phases < 0, phases[:, :1], phases)


def _possible_phases(grammar: Grammar, phase: int) -> list[int]:
    """The phases that a transition to `phase` may lead to: a velocity may be left out, and ties may be pending."""
    phases = [phase]
    if phase == Phase.VELOCITY and grammar.strikes is not None:
        phases.append(Phase.BEAT)
    if grammar.ties != "repeat":
        phases += [pending for known, pending in WITH_TIES.items() if known in phases]
    return phases
