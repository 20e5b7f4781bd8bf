"""Training windows with controls, from which a model learns to play as it is asked to (`loader.control_share`).

Shapes: T tokens of a window, B beats.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pianolm.lm.loss import IGNORE
from pianolm.lm.window_rewriter import Rewritten
from pianolm.tokenizer.controls import Control, density_level, insert_controls, loudness_level
from pianolm.tokenizer.fill import last_beats
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.velocity_cells import read_velocities, with_louder
from pianolm.tokenizer.vocabulary import CONTROLS, Kind

Ids = NDArray[np.int64]

PHRASES = (4, 8, 16)
"""Beats over which levels are measured, one of these for a window."""
FROM_START = 0.5
"""Share of the windows that have controls from their first beat on; the others from any beat on."""
SOFTER, LOUDER = 35, 20
"""Most MIDI units by which a window is played softer or louder, so that all levels of loudness are learned."""
CONTRAST = 0.5
"""Share of the windows with beats before their first control in which only what comes after it is played softer or
louder."""


class ControlWindows:
    """Puts controls into windows.

    Args:
        tokenizer: Its layout has controls.
    """

    def __init__(self, tokenizer: PianoTokenizer) -> None:
        self._tokenizer, self._vocabulary = tokenizer, tokenizer.vocabulary

    def sequence(self, tokens: Ids, drawn: NDArray[np.float64], flat: bool) -> Rewritten | None:
        """A window with controls; None if it has not two beats.

        It loses as many tokens at its end, or first beats where it ends a piece. A third of the windows has both
        controls, the others one of them; where velocities mean nothing there is density alone. See
        `pianolm.lm.window_rewriter.Rewriter` for the arguments.
        """
        size, ends = tokens.size, tokens[-1] == self._vocabulary.eos
        beats = PHRASES[int(drawn[4] * len(PHRASES))]
        if ends:
            most_controls = len(CONTROLS) * (1 + self._n_beats(tokens) // beats)
            tokens = last_beats(self._vocabulary, tokens, size - most_controls)
        whole = self._n_beats(tokens) - int(not ends)  # the last beat may go on behind the window
        if whole < 2:
            return None
        kinds = [CONTROLS, (Kind.LOUDNESS,), (Kind.DENSITY,)][int(drawn[0] * 3)]
        if flat or self._tokenizer.codec is None:
            kinds = (Kind.DENSITY,)
        first = 0 if drawn[2] < FROM_START else int(drawn[3] * whole)
        if Kind.LOUDNESS in kinds:
            louder = round(drawn[1] * (SOFTER + LOUDER)) - SOFTER
            tokens = with_louder(self._tokenizer, tokens, louder, first if drawn[5] < CONTRAST else -1)
        bounds = _phrases(first, whole, beats)
        ids = insert_controls(self._vocabulary, tokens, list(self._controls(tokens, bounds, kinds)))[:size]
        return Rewritten(ids, self._labels(ids))

    def _n_beats(self, tokens: Ids) -> int:
        return int((self._vocabulary.kind_of[tokens] == Kind.TEMPO).sum())

    def _controls(self, tokens: Ids, bounds: list[int], kinds: tuple[Kind, ...]) -> Iterator[Control]:
        """The levels between bounds, where they change."""
        tempo_at = np.flatnonzero(self._vocabulary.kind_of[tokens] == Kind.TEMPO)
        notes_B = np.add.reduceat(self._tokenizer.strikes_per_id[tokens], tempo_at)
        beat, velocity = (np.zeros(0, np.int64),) * 2
        if Kind.LOUDNESS in kinds:
            beat, velocity = read_velocities(self._tokenizer, tokens).struck
        last: dict[Kind, int] = {}
        for begin, stop in pairwise(bounds):
            levels = {Kind.DENSITY: density_level(int(notes_B[begin:stop].sum()), stop - begin)}
            inside = velocity[(beat >= begin) & (beat < stop)]
            if inside.size:
                levels[Kind.LOUDNESS] = loudness_level(inside)
            for kind in kinds:
                if kind in levels and levels[kind] != last.get(kind):
                    last[kind] = levels[kind]
                    yield Control(begin, kind, levels[kind])

    def _labels(self, ids: Ids) -> Ids:
        """[T] the ids, but the tempo, with which generation asks for controls, in place of the first of them.

        The controls themselves are given.
        """
        kinds = self._vocabulary.kind_of[ids]
        labels = ids.copy()
        told = np.flatnonzero(np.isin(kinds, CONTROLS))
        labels[told] = IGNORE
        tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
        first = told[~np.isin(told - 1, told)]
        first = first[first < tempo_at.max(initial=0)]  # not those whose tempo was cut off
        labels[first] = ids[tempo_at[np.searchsorted(tempo_at, first)]]
        return labels


def _phrases(first: int, stop: int, beats: int) -> list[int]:
    """Bounds of phrases of some beats; a rest of less than half a phrase belongs to the one before."""
    bounds = list(range(first, stop, beats))
    if len(bounds) > 1 and stop - bounds[-1] < beats / 2:
        bounds.pop()
    return [*bounds, stop]
