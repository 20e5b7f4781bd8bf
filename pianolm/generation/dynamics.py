"""Dynamics for given notes: only the velocity tokens of a piece are sampled.

Shapes: T tokens, C cells.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pianolm.generation.config import GenerationConfig
from pianolm.generation.generator import Generator
from pianolm.generation.sampling import Sampler
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.vocabulary import Kind

_VELOCITY_STATE = State(Phase.VELOCITY)


def render_ids(
    generator: Generator, tokenizer: PianoTokenizer, piece: Piece, config: GenerationConfig, seed: int
) -> NDArray[np.int64]:
    """The tokens [T] of a piece with new velocity tokens.

    The velocity token of a cell in which no note is struck is not sampled: it repeats the velocity of the note that is
    held over, so that the model reads the velocity that sounds.

    Args:
        generator: Of a model with velocities.
        tokenizer: Of the same model.
        piece: At least one note.
        config: How velocity tokens are sampled.
        seed: Of the random numbers.
    """
    codec = tokenizer.codec
    assert codec is not None, "a tokenizer with velocities"
    encoded = tokenizer.encode(piece).ids
    ids: list[int] = encoded.tolist()
    kinds = tokenizer.vocabulary.kind_of[encoded]
    beat_starts = np.flatnonzero(kinds == Kind.TEMPO).tolist()
    held_velocities = _HeldVelocities(tokenizer.decode(encoded).cells, codec)
    first_code = tokenizer.vocabulary.offset(Kind.VELOCITY)
    sampler, rng = Sampler(generator.order, config), np.random.default_rng(seed)
    candidates = generator.order.candidates(_VELOCITY_STATE)
    engine, n_read = generator.make_engine(1), 0
    for position, cell in _velocity_tokens(tokenizer, encoded, held_velocities.cells):
        code = held_velocities.code(cell)
        if code is None:
            if position - n_read <= engine.context - engine.lengths[0]:
                engine.extend(0, ids[n_read:position])
            else:
                generator.refill(engine, 0, ids[:position], beat_starts[: bisect_left(beat_starts, position)])
            n_read = position
            (logits_R,) = engine.logits([0], candidates.low, candidates.high)
            code = sampler.sample(logits_R, candidates, rng.random()) - first_code
        held_velocities.update(cell, code)
        ids[position] = first_code + code
    return np.array(ids, np.int64)


def with_velocities(piece: Piece, rendered: Piece) -> Piece:
    """A piece with the velocities of another one, which has the same music on frames; nothing else changes.

    Args:
        piece: Its notes get new velocities: see `Piece.with_velocities_of`.
        rendered: Has notes of every pitch of `piece`.
    """
    return replace(piece.with_velocities_of(rendered.frame_notes), skipped=rendered.skipped)


def _velocity_tokens(
    tokenizer: PianoTokenizer, ids: NDArray[np.int64], cells: Cells
) -> Iterator[tuple[int, int]]:
    """The position of each velocity token, ascending, and the index of its cell."""
    positions, beat, pitch = tokenizer.velocity_tokens(ids)
    cell = np.searchsorted(cells.beat.astype(np.int64) << 7 | cells.pitch, beat << 7 | pitch)
    assert np.array_equal(cells.pitch[cell], pitch), "encoded cells are decoded to the same cells"
    order = np.argsort(positions)
    return zip(positions[order].tolist(), cell[order].tolist(), strict=True)


class _HeldVelocities:
    """The velocity with which each pitch sounds, updated cell by cell."""

    def __init__(self, cells: Cells, codec: VelocityCodec) -> None:
        self.cells, self._codec = cells, codec
        self._velocity_of_pitch: dict[int, int] = {}

    def code(self, cell: int) -> int | None:
        """The velocity code of a cell whose note is held over; None where a note is struck."""
        if self.cells.onset[cell]:
            return None
        pitch = int(self.cells.pitch[cell])
        rows = slice(cell, cell + 1)
        single = Cells(
            beat=np.zeros(1, np.int32),
            pitch=self.cells.pitch[rows],
            sustain=self.cells.sustain[rows],
            onset=self.cells.onset[rows],
            segment_velocity=np.array([self._velocity_of_pitch[pitch]], np.uint8),
            n_beats=1,
        )
        return int(self._codec.encode(single)[0])

    def update(self, cell: int, code: int) -> None:
        """Stores the velocity of the last note that a cell strikes; a held note keeps the velocity it has."""
        if not self.cells.onset[cell]:
            return
        rows = slice(cell, cell + 1)
        codes = np.array([min(code, self._codec.codebook_size - 1)])
        velocities = self._codec.decode(codes, self.cells.sustain[rows], self.cells.onset[rows])
        self._velocity_of_pitch[int(self.cells.pitch[cell])] = int(velocities[-1])
