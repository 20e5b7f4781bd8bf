"""Training windows as fill sequences, from which a model learns to fill gaps (`loader.fill_share`).

A fill sequence is at most as long as its window: the longer side loses beats.

Shapes: T tokens of a window.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pianolm.lm.loss import IGNORE
from pianolm.lm.window_rewriter import Rewritten
from pianolm.music.gap import HIGHEST_PITCH, LOWEST_PITCH, Gap
from pianolm.tokenizer.fill import FillSequence, FillWriter, Ids, first_beats, last_beats
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.vocabulary import Kind

LONGEST_GAP = 64
"""Most beats of a gap; it has half of the window's beats at most."""
REGISTER_SHARE = 0.25
"""Share of the gaps in which only a register is left out."""


class FillWindows:
    """Makes fill sequences of windows.

    Args:
        grammar: Of the windows, whose layout `pianolm.tokenizer.fill.check_fill` accepts.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._vocabulary, self._writer = grammar.vocabulary, FillWriter(grammar)

    def sequence(self, tokens: Ids, drawn: NDArray[np.float64], flat: bool) -> Rewritten | None:
        """The fill sequence of a window; see `pianolm.lm.window_rewriter.Rewriter`."""
        found = self.fill_sequence(tokens, drawn)
        return None if found is None else Rewritten(found.ids, np.where(found.scored, found.ids, IGNORE))

    def fill_sequence(self, tokens: Ids, drawn: NDArray[np.float64]) -> FillSequence | None:
        """The same with its parts."""
        whole = self._whole_beats(tokens)
        tempo_at = np.flatnonzero(self._vocabulary.kind_of[whole] == Kind.TEMPO)
        if tempo_at.size < 2:
            return None
        longest = min(tempo_at.size // 2, LONGEST_GAP)
        beats = min(int((longest + 1) ** drawn[0]), longest)  # short gaps as often as long ones, by ratio
        first = int(drawn[1] * (tempo_at.size - beats + 1))
        gap = Gap(first, first + beats)
        if drawn[2] < REGISTER_SHARE:
            stop = tempo_at[gap.stop] if gap.stop < tempo_at.size else whole.size
            gap = self._with_register(gap, whole[tempo_at[first] : stop], drawn[3:])
        return self._sequence(whole, gap, tokens.size)

    def _whole_beats(self, tokens: Ids) -> Ids:
        """A window without a beat that has begun before it, or may go on after it."""
        kinds = self._vocabulary.kind_of[tokens]
        tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
        if not tempo_at.size:
            return tokens[:0]
        opening = tokens[: tempo_at[0]][np.isin(kinds[: tempo_at[0]], (Kind.BOS, Kind.TUNING))]
        stop = tokens.size if tokens[-1] == self._vocabulary.eos else int(tempo_at[-1])
        return np.concatenate([opening, tokens[tempo_at[0] : stop]])

    def _with_register(self, gap: Gap, tokens: Ids, drawn: NDArray[np.float64]) -> Gap:
        """The gap for the pitches above, below or between pitches that occur in it."""
        v = self._vocabulary
        pitches = np.sort(tokens[v.kind_of[tokens] == Kind.PITCH]) - v.offset(Kind.PITCH)
        if not pitches.size:
            return gap
        a, b = sorted(pitches[(drawn[:2] * pitches.size).astype(np.int64)].tolist())
        lowest, highest = [(a, HIGHEST_PITCH), (LOWEST_PITCH, b), (a, b)][int(drawn[2] * 3)]
        return replace(gap, lowest=lowest, highest=highest)

    def _sequence(self, whole: Ids, gap: Gap, most: int) -> FillSequence | None:
        """The sequence with fewer beats far from the gap, so that it has at most so many tokens; None if it cannot."""
        v, parts = self._vocabulary, self._writer.parts(whole, gap)
        excess = self._writer.sequence(parts).ids.size - most
        if excess > 0 and parts.suffix.size >= parts.prefix.size:
            parts = replace(parts, suffix=first_beats(v, parts.suffix, parts.suffix.size - excess))
        elif excess > 0:
            left = last_beats(v, parts.prefix, parts.prefix.size - excess)
            beats = int((v.kind_of[parts.prefix] == Kind.TEMPO).sum() - (v.kind_of[left] == Kind.TEMPO).sum())
            start = np.flatnonzero(v.kind_of[whole] == Kind.TEMPO)[beats]
            later = np.concatenate([np.array(v.tuning_id(whole), np.int64), whole[start:]])
            parts = self._writer.parts(later, replace(gap, first=gap.first - beats, stop=gap.stop - beats))
        sequence = self._writer.sequence(parts)
        return sequence if sequence.ids.size <= most else None
