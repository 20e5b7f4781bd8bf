"""Why a token may not come where it stands, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pianolm.tokenizer.grammar_state import NO_FILL, Part, State
from pianolm.tokenizer.grammar_table import ILLEGAL, WITH_TIES, Phase
from pianolm.tokenizer.vocabulary import CONTROLS, FILL_MARKS, Kind

if TYPE_CHECKING:
    from pianolm.tokenizer.grammar import Grammar


def token_problem(grammar: Grammar, state: State, token: int) -> str:
    """Why a token is not allowed, which it must not be."""
    if not 0 <= token < grammar.vocabulary.size:
        return f"{token} is not an id of this vocabulary (0–{grammar.vocabulary.size - 1})"
    name, kind = grammar.vocabulary.describe(token), grammar.kind_of[token]
    legal = grammar.table[state.phase, kind] != ILLEGAL
    if state.fill is not NO_FILL and (expected_here := _fill_problem(grammar, state, token)):
        return f"{name} found, expected {expected_here}"
    if kind == Kind.BAR and grammar.bars:
        return f"{name} found, but the position in the bar may only follow directly after a tempo"
    if state.phase in WITH_TIES.values():
        tie = f"codes of pitch {state.pitch}"
        if grammar.ties == "explicit":
            tie = f"duration {grammar.duration_bin(state)}, pitch {state.pitch} and its codes"
        return f"{name} found, expected {tie}: the pitch sounds on from the beat before"
    if state.phase == Phase.DURATION:
        return f"{name} found, expected pitch {state.pitch}, to which the duration before it belongs"
    if legal and kind == Kind.PITCH and grammar.pitch_of[token] <= state.last_pitch:
        return f"{name} found, but pitches ascend within a beat, and this one has pitch {state.last_pitch}"
    if legal and kind == Kind.PITCH:
        return (
            f"{name} found, but the pitch sounds on from the beat before and has had its codes in this beat"
        )
    if legal:
        return f"{name} found, but with it the cell of pitch {state.pitch} is all silent"
    chosen = [kind for kind in Kind if kind not in CONTROLS]
    expected = [kind.name for kind in chosen if grammar.table[state.phase, kind] != ILLEGAL]
    return f"{name} found, expected one of {', '.join(expected)}"


def _fill_problem(grammar: Grammar, state: State, token: int) -> str:
    """What a fill sequence needs instead of a token that its part does not allow; empty where that is not why."""
    kind, fill = grammar.kind_of[token], state.fill
    if kind in FILL_MARKS or grammar.table[state.phase, kind] == ILLEGAL:
        return ""
    if kind in CONTROLS:
        return "none of the controls, which fill sequences do not have"
    if kind == Kind.EOS and fill.part == Part.GAP:
        return "a suffix after the gap"
    if kind == Kind.EOS and fill.part == Part.PREFIX:
        return "a middle after the prefix"
    if fill.part != Part.MIDDLE or kind not in (Kind.TEMPO, Kind.BAR, Kind.EOS):
        return ""
    if kind == Kind.BAR:
        return grammar.vocabulary.describe(fill.bar) + ", as in the gap" if fill.bar >= 0 else ""
    if not fill.grid:
        return "EOS: the middle has as many beats as the gap"
    return f"{grammar.vocabulary.describe(fill.grid[0][0])} of the gap's next beat"
