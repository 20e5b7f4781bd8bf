"""Training windows with controls, from which a model learns to play as it is asked to (`loader.control_share`).

Shapes: T tokens of a window, N notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.tokenizer.controls import Control, density_level, insert_controls, loudness_level
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CONTROLS, Kind

Ids = NDArray[np.int64]

PHRASES = (4, 8, 16)
"""Beats over which levels are measured, one of these for a window."""
FROM_START = 0.5
"""Share of the windows that have controls from their first beat on; the others from any beat on."""
SOFTER, LOUDER = 35, 20
"""Most MIDI units by which a window is played softer or louder, so that all levels of loudness are learned."""


class ControlSequence(NamedTuple):
    """A window with controls: `ids` [T], and whether each is to be learned, which controls are not."""

    ids: Ids
    scored: NDArray[np.bool_]


class ControlWindows:
    """Puts controls into windows.

    Args:
        tokenizer: Its layout has controls.
    """

    def __init__(self, tokenizer: PianoTokenizer) -> None:
        self._tokenizer, self._vocabulary = tokenizer, tokenizer.vocabulary

    def sequence(self, tokens: Ids, drawn: NDArray[np.float64], flat: bool) -> ControlSequence | None:
        """A window with controls, of which it loses as many tokens at its end; None if it has not two beats.

        A third of the windows has both controls, the others one of them; without velocities there is density alone. See
        `pianolm.lm.window_rewriter.Rewriter` for the arguments.
        """
        n_beats = int((self._vocabulary.kind_of[tokens] == Kind.TEMPO).sum())
        whole = n_beats - int(tokens[-1] != self._vocabulary.eos)  # the last beat may go on behind the window
        if whole < 2:
            return None
        kinds = [CONTROLS, (Kind.LOUDNESS,), (Kind.DENSITY,)][int(drawn[0] * 3)]
        if flat or self._tokenizer.codec is None:
            kinds = (Kind.DENSITY,)
        if Kind.LOUDNESS in kinds:
            tokens = self._tokenizer.louder(tokens, round(drawn[1] * (SOFTER + LOUDER)) - SOFTER)
        first = 0 if drawn[2] < FROM_START else int(drawn[3] * whole)
        bounds = _phrases(first, whole, PHRASES[int(drawn[4] * len(PHRASES))])
        ids = insert_controls(self._vocabulary, tokens, list(self._controls(tokens, bounds, kinds)))
        ids = ids[: tokens.size]
        return ControlSequence(ids, ~np.isin(self._vocabulary.kind_of[ids], CONTROLS))

    def _controls(self, tokens: Ids, bounds: list[int], kinds: tuple[Kind, ...]) -> Iterator[Control]:
        """The levels between bounds, where they change."""
        notes = self._tokenizer.frame_notes(tokens)
        beat = notes["onset"] // FRAMES
        last: dict[Kind, int] = {}
        for begin, stop in pairwise(bounds):
            velocity = notes["velocity"][(beat >= begin) & (beat < stop)]
            levels = {Kind.DENSITY: density_level(velocity.size, stop - begin)}
            if velocity.size:
                levels[Kind.LOUDNESS] = loudness_level(velocity)
            for kind in kinds:
                if kind in levels and levels[kind] != last.get(kind):
                    last[kind] = levels[kind]
                    yield Control(begin, kind, levels[kind])


def _phrases(first: int, stop: int, beats: int) -> list[int]:
    """Bounds of phrases of some beats; a rest of less than half a phrase belongs to the one before."""
    bounds = list(range(first, stop, beats))
    if len(bounds) > 1 and stop - bounds[-1] < beats / 2:
        bounds.pop()
    return [*bounds, stop]
