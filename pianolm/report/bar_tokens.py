"""The tokens of some beats as they are drawn: what each says, and where its label stands in the column of its beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pianolm.report.patterns import pitch_name
from pianolm.tokenizer.grammar_table import WITH_TIES
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import EIGHTHS_OF_KIND, Kind

TOKEN_POINTS = 7.5
"""Size of the labels."""
_CHAR_IN = 0.602 * TOKEN_POINTS / 72  # width of a letter of DejaVu Sans Mono


@dataclass(frozen=True)
class BarToken:
    """A token as it is drawn.

    Attributes:
        kind: Kind of token.
        label: Short text.
        pitch: Pitch of its cell, −1 for a tempo, its tuning and a bar.
        eighth: Of a code, where it begins in the beat.
        sustain: Of a code, its pattern.
        onset: Of a code, its pattern.
        starts_tie: Whether it is the first token of a tied cell, which sounds on from the beat before.
    """

    kind: Kind
    label: str
    pitch: int = -1
    eighth: int = 0
    sustain: int = 0
    onset: int = 0
    starts_tie: bool = False


@dataclass(frozen=True)
class PlacedToken:
    """A token on a line of its beat's column, `left` and `width` in inches."""

    token: BarToken
    line: int
    left: float
    width: float


def beat_tokens(
    tokenizer: PianoTokenizer, ids: NDArray[np.int64], first_beat: int, n_beats: int
) -> list[list[BarToken]]:
    """The tokens of some beats; each begins with its tempo, the first of the piece with the tuning, if it has one."""
    vocabulary, patterns, grammar = tokenizer.vocabulary, tokenizer.codebook.id_patterns, tokenizer.grammar
    tempo_at = np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO)
    stated = vocabulary.tuning_id(ids)
    tempo_bpm = tokenizer.tempo.bpm_of_tuning[stated[0] - vocabulary.offset(Kind.TUNING) if stated else 0]
    opening = [BarToken(Kind.TUNING, vocabulary.describe(token)) for token in stated if first_beat == 0]
    ends = np.append(tempo_at, ids.size - 1)[first_beat : first_beat + n_beats + 1]
    beats: list[list[BarToken]] = []
    state, pitch, eighth = grammar.start(), 0, 0
    for at, token in enumerate(ids[: ends[-1]].tolist()):
        before, state = state, grammar.after(state, token)
        if at < ends[0]:
            continue
        kind = Kind(vocabulary.kind_of[token])
        number = token - vocabulary.offset(kind)
        if kind is Kind.TEMPO:
            beats.append([*([] if beats else opening), BarToken(kind, f"{tempo_bpm[number]:.0f} BPM")])
        elif kind is Kind.BAR:
            beats[-1].append(BarToken(kind, vocabulary.describe(token)))
        elif kind is Kind.DURATION:
            tie = BarToken(kind, vocabulary.describe(token), before.pitch, starts_tie=True)
            beats[-1].append(tie)
        elif kind is Kind.PITCH:
            pitch, eighth = number, 0
            beats[-1].append(BarToken(kind, pitch_name(pitch), pitch))
        elif kind is Kind.VELOCITY:
            beats[-1].append(BarToken(kind, f"vel {number}", pitch))
        else:
            pattern, label = (
                (int(patterns.sustain[token]), int(patterns.onset[token])),
                vocabulary.describe(token),
            )
            implicit_tie = before.phase in WITH_TIES.values()  # codes without a pitch token
            if implicit_tie:
                pitch, eighth = before.pitch, 0
                label = f"({pitch_name(pitch)}) {label}"
            beats[-1].append(BarToken(kind, label, pitch, eighth, *pattern, implicit_tie))
            eighth += EIGHTHS_OF_KIND[kind]
    return beats


def arrange_tokens(tokens: list[BarToken], width_in: float) -> list[PlacedToken]:
    """Places the tokens of a beat: tuning, tempo and every cell begin a line; long lines are broken and indented."""
    placed: list[PlacedToken] = []
    line, left, indent, after_duration = -1, 0.0, 0.5, False
    for token in tokens:
        token_in = len(token.label) * _CHAR_IN + 0.09
        if token.starts_tie or (token.kind in (Kind.TUNING, Kind.TEMPO, Kind.PITCH) and not after_duration):
            line, left = line + 1, 0.0
        elif left + token_in > width_in:
            line, left = line + 1, indent
        placed.append(PlacedToken(token, line, left, token_in))
        after_duration = token.kind is Kind.DURATION  # its pitch follows on the same line
        left = max(left + token_in + 0.05, indent)
    return placed
