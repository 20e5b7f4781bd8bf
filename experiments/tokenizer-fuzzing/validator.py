"""A validator that checks many sequences at once against the grammar's table.

Shapes: N sequences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pianolm.music.cells import FRAMES
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_table import BETWEEN_CELLS, ILLEGAL, N_PHASES, WITH_TIES, Phase
from pianolm.tokenizer.ties import MAX_TIE_FRAMES, duration_bins
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind


def well_formed(grammar: Grammar, sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """`Grammar.first_problem` of many sequences at once, from the same table.

    Returns:
        [N] position of the first problem, −1 where there is none; [N] the phase reached before it.
    """
    size = np.array([ids.size for ids in sequences])
    tokens = np.full((size.size, int(size.max(initial=0))), -1, np.int64)
    for row, ids in zip(tokens, sequences, strict=True):
        row[: ids.size] = ids
    inside = (tokens >= 0) & (tokens < grammar.vocabulary.size)
    tokens = np.where(inside, tokens, 0)
    is_code = np.isin(np.arange(len(Kind)), CODE_KINDS)
    # one more row and column that allow nothing: for sequences with a problem, and for numbers that are no ids
    table = np.full((N_PHASES + 1, len(Kind) + 1), N_PHASES)
    table[:-1, :-1] = np.where(grammar.table == ILLEGAL, N_PHASES, grammar.table)
    kinds = np.where(inside, grammar.kind_of[tokens], len(Kind))
    code, silent = inside & is_code[grammar.kind_of[tokens]], grammar.silent[tokens]
    position, reached = np.full(size.size, -1), np.zeros(size.size, np.int64)
    floor, sounding = np.full(size.size, -1), np.zeros(size.size, bool)
    strikes = np.ones(grammar.vocabulary.size, bool) if grammar.strikes is None else grammar.strikes
    struck, ties = np.zeros(size.size, bool), _Ties(grammar, size.size)
    for at in range(tokens.shape[1]):
        kind, pitch = kinds[:, at], grammar.pitch_of[tokens[:, at]]
        after = table[reached, kind]
        is_pitch = kind == Kind.PITCH
        names = is_pitch & (reached != Phase.DURATION)
        sounds, strike = sounding | (code[:, at] & ~silent[:, at]), struck | strikes[tokens[:, at]]
        completes = code[:, at] & ((after == Phase.VELOCITY) | (after == Phase.BEAT))
        after = np.where(completes & (after == Phase.VELOCITY) & ~strike, Phase.BEAT, after)
        bad = (after == N_PHASES) | (names & (pitch <= floor)) | (completes & ~sounds & ~ties.waiting)
        bad |= ties.wrong(reached, kind, pitch, tokens[:, at])
        running = (at < size) & (position < 0)
        position[running & bad] = at
        go = running & ~bad
        ties.count(go & is_pitch, names, go & code[:, at], tokens[:, at])
        reached = np.where(go, after, reached)
        ties.advance(go & (kind == Kind.TEMPO), go & completes, sounds, floor, tokens[:, at])
        for phase, pending in WITH_TIES.items():
            reached = np.where((reached == phase) & ties.waiting, pending, reached)
        sounding = np.where(go, sounds & code[:, at] & ~completes, sounding)
        struck = np.where(go, strike & code[:, at] & ~completes, struck)
        floor = np.where(go & names, pitch, np.where(go & (kind == Kind.TEMPO), -1, floor))
    return position, reached


class _Ties:
    """Which pitches sound on in many sequences at once, [N, 128]; none in a grammar without ties."""

    def __init__(self, grammar: Grammar, count: int) -> None:
        self.codes, self.explicit = grammar.tie_codes, grammar.ties == "explicit"
        self.first_duration = grammar.vocabulary.offset(Kind.DURATION)
        self.pending, self.sounding, self.tied = np.zeros((3, count, 128), bool)
        # frames since each pitch was struck, at the beat line; and since that of the open cell was, so far
        self.frames, self.open_frames = np.zeros((count, 128), np.int64), np.zeros(count, np.int64)
        self.length = (
            FRAMES // 8 * np.array([EIGHTHS_OF_KIND.get(Kind(kind), 0) for kind in grammar.kind_of.tolist()])
        )

    @property
    def waiting(self) -> np.ndarray:
        return self.pending.any(axis=1)

    def wrong(
        self, reached: np.ndarray, kind: np.ndarray, pitch: np.ndarray, tokens: np.ndarray
    ) -> np.ndarray:
        """[N] where a token that the table allows contradicts the ties."""
        row, pending = np.arange(pitch.size), self.pending.argmax(axis=1)
        tied = (kind == Kind.PITCH) & self.tied[row, np.clip(pitch, 0, 127)] & np.isin(reached, BETWEEN_CELLS)
        if not self.explicit:
            return tied
        expected = self.first_duration + duration_bins(self.frames[row, pending])
        wrong_bin = (kind == Kind.DURATION) & (tokens != expected)
        return tied | wrong_bin | ((reached == Phase.DURATION) & (pitch != pending))

    def count(self, is_pitch: np.ndarray, names: np.ndarray, is_code: np.ndarray, tokens: np.ndarray) -> None:
        """Takes in a pitch or a code for the duration of its cell."""
        if self.codes is None:
            return
        of_tie = self.frames[np.arange(tokens.size), self.pending.argmax(axis=1)]
        self.open_frames = np.where(is_pitch, np.where(names, 0, of_tie), self.open_frames)
        since = self.codes.frames_since_strike[tokens]
        further = np.minimum(self.open_frames + self.length[tokens], MAX_TIE_FRAMES)
        after = np.where(self.codes.sounds_to_end[tokens], np.where(since >= 0, since, further), 0)
        self.open_frames = np.where(is_code, after, self.open_frames)

    def advance(
        self, tempo: np.ndarray, whole: np.ndarray, sounds: np.ndarray, floor: np.ndarray, tokens: np.ndarray
    ) -> None:
        """Takes in a tempo, or the last code of a cell."""
        if self.codes is None:
            return
        tie = np.flatnonzero(whole & self.waiting)
        pitch = np.where(self.waiting, self.pending.argmax(axis=1), floor)
        at = np.flatnonzero(whole)
        self.sounding[at, pitch[at]] |= self.codes.sounds_to_end[tokens[at]]
        self.frames[at, pitch[at]] = self.open_frames[at]
        self.pending[tie, pitch[tie]] = False
        self.tied[tie, pitch[tie]] = sounds[tie]
        self.pending[tempo] = self.sounding[tempo]
        self.sounding[tempo] = self.tied[tempo] = False
