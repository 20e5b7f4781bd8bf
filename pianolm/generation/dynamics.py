"""Dynamics for given notes: only the velocity tokens of a piece are drawn.

Shapes: T tokens, C cells.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.generator import Player
from pianolm.generation.sampling import Drawer, Sampling
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece
from pianolm.tokenizer.grammar import Phase, State
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import Kind

_WANTS_VELOCITY = State(Phase.VELOCITY)


def render_ids(
    player: Player, tokenizer: PianoTokenizer, piece: Piece, sampling: Sampling, seed: int
) -> NDArray[np.int64]:
    """The tokens [T] of a piece with new velocity tokens.

    Where a cell in which nothing is struck has a velocity token, it is not drawn: it repeats the velocity of the note
    that goes on, so that what the model reads is what sounds.

    Args:
        player: Of a model with velocities.
        tokenizer: Its tokenizer.
        piece: At least one note.
        sampling: How velocity tokens are drawn.
        seed: Of the random numbers.
    """
    codec = tokenizer.codec
    assert codec is not None, "a tokenizer with velocities"
    array = tokenizer.encode(piece).ids
    ids: list[int] = array.tolist()
    kinds = tokenizer.vocabulary.kind_of[array]
    beat_at = np.flatnonzero(kinds == Kind.TEMPO).tolist()
    sounding = _Sounding(tokenizer.decode(array).cells, codec)
    first = tokenizer.vocabulary.offset(Kind.VELOCITY)
    drawer, random = Drawer(player.places, sampling), np.random.default_rng(seed)
    choice = player.places.choice(_WANTS_VELOCITY)
    engine, read = player.engine(1), 0
    for at, cell in _velocity_tokens(tokenizer, array, sounding.cells):
        code = sounding.code_of_held(cell)
        if code is None:
            if at - read <= engine.context - engine.lengths[0]:
                engine.extend(0, ids[read:at])
            else:
                player.fill(engine, 0, ids[:at], beat_at[: bisect_left(beat_at, at)])
            read = at
            code = drawer.draw(engine.logits(0, choice.low, choice.high), choice, random.random()) - first
        sounding.hear(cell, code)
        ids[at] = first + code
    return np.array(ids, np.int64)


def _velocity_tokens(
    tokenizer: PianoTokenizer, ids: NDArray[np.int64], cells: Cells
) -> Iterator[tuple[int, int]]:
    """Where each velocity token stands, in order, and its cell."""
    at, beat, pitch = tokenizer.velocity_tokens(ids)
    cell = np.searchsorted(cells.beat.astype(np.int64) << 7 | cells.pitch, beat << 7 | pitch)
    assert np.array_equal(cells.pitch[cell], pitch), "what is encoded comes back cell by cell"
    order = np.argsort(at)
    return zip(at[order].tolist(), cell[order].tolist(), strict=True)


class _Sounding:
    """Which velocity each key sounds with, as codes come in cell by cell."""

    def __init__(self, cells: Cells, codec: VelocityCodec) -> None:
        self.cells, self._codec = cells, codec
        self._of_pitch: dict[int, int] = {}

    def code_of_held(self, cell: int) -> int | None:
        """The code of a cell in which a note only goes on; None where one is struck."""
        if self.cells.onset[cell]:
            return None
        velocity = np.array([self._of_pitch[int(self.cells.pitch[cell])]], np.uint8)
        of_cell = slice(cell, cell + 1)
        alone = Cells(
            beat=np.zeros(1, np.int32),
            pitch=self.cells.pitch[of_cell],
            sustain=self.cells.sustain[of_cell],
            onset=self.cells.onset[of_cell],
            segment_velocity=velocity,
            n_beats=1,
        )
        return int(self._codec.encode(alone)[0])

    def hear(self, cell: int, code: int) -> None:
        """Takes in what a code says of a cell; a note keeps the velocity that it was struck with."""
        if not self.cells.onset[cell]:
            return
        of_cell = slice(cell, cell + 1)
        codes = np.array([min(code, self._codec.codebook_size - 1)])
        said = self._codec.decode(codes, self.cells.sustain[of_cell], self.cells.onset[of_cell])
        self._of_pitch[int(self.cells.pitch[cell])] = int(said[-1])
