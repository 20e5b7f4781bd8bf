"""Cells to token ids and back: the order of tokens in a sequence.

Shapes: T tokens, B beats, R rows (cells and tied cells in the order of their tokens), C cells, V ids.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.bars import UNKNOWN
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_table import ILLEGAL, Phase
from pianolm.tokenizer.tie_reader import TieReader
from pianolm.tokenizer.vocabulary import ALLOTMENT, CONTROLS, EIGHTHS_BY_KIND, Kind, Vocabulary

LAST_POSITION = ALLOTMENT[Kind.BAR]
"""Highest position in a bar with a token of its own; it stands for all later positions, too."""

# Plain numbers: a look-up of an enum member costs more than a step of decoding a short sequence.
_TEMPO, _PITCH, _BAR = int(Kind.TEMPO), int(Kind.PITCH), int(Kind.BAR)
_EOS, _PAD, _BOS, _TUNING = int(Kind.EOS), int(Kind.PAD), int(Kind.BOS), int(Kind.TUNING)
_CODES, _BEAT = int(Phase.CODES), int(Phase.BEAT)
_LONGEST_CELL = 10
"""Tokens of the longest cell: pitch, eight L4 codes and velocity."""


class CellTokens(NamedTuple):
    """The tokens of cells and tied cells, in order, as numbers within their kinds.

    Attributes:
        codes: [R, 8] code ids as `Codebook.encode` gives them.
        pitch: [R] pitch, −1 where none is stated.
        duration: [R] duration bin, −1 where none is stated.
        velocity: [R] velocity code, −1 where none is stated.
        beat: [R] beat.
    """

    codes: NDArray[np.integer]
    pitch: NDArray[np.int64]
    duration: NDArray[np.int64]
    velocity: NDArray[np.int64]
    beat: NDArray[np.integer]


def write_ids(
    vocabulary: Vocabulary,
    cells: CellTokens,
    tempo_B: NDArray[np.int64],
    position_B: NDArray[np.int64] | None = None,
    tuning: int | None = None,
) -> NDArray[np.int64]:
    """The ids [T] of a piece, with BOS and EOS.

    Args:
        vocabulary: The ids.
        cells: Tokens of its cells.
        tempo_B: Tempo bin of every beat.
        position_B: Position in the bar of every beat, from 1, or `UNKNOWN`; None where no bar tokens are written.
        tuning: Tuning of the tempo bins; None where none is written.
    """
    has_code = cells.codes >= 0
    n_codes = np.bitwise_count(np.packbits(has_code, axis=1)[:, 0])
    has_pitch, has_duration = (cells.pitch >= 0).astype(np.int64), (cells.duration >= 0).astype(np.int64)
    has_velocity = cells.velocity >= 0
    before = np.zeros(cells.beat.size + 1, np.int64)  # tokens of all cells before each
    np.cumsum(has_duration + has_pitch + n_codes + has_velocity, out=before[1:])
    has_bar = np.zeros(tempo_B.size, bool) if position_B is None else position_B != UNKNOWN
    opening = (
        [vocabulary.bos] if tuning is None else [vocabulary.bos, vocabulary.offset(Kind.TUNING) + tuning]
    )
    # where the cells of each beat would begin if no other cells came before
    heads_end = len(opening) + np.cumsum(1 + has_bar)
    ids = np.empty(len(opening) + before[-1] + tempo_B.size + int(has_bar.sum()) + 1, np.int64)
    ids[: len(opening)], ids[-1] = opening, vocabulary.eos
    cells_at = heads_end + before[np.searchsorted(cells.beat, np.arange(tempo_B.size))]
    ids[cells_at - 1 - has_bar] = tempo_B + vocabulary.offset(Kind.TEMPO)
    if position_B is not None:
        position = np.minimum(position_B[has_bar], LAST_POSITION)
        ids[cells_at[has_bar] - 1] = position - 1 + vocabulary.offset(Kind.BAR)
    code_at = before[:-1] + heads_end[cells.beat] + has_duration + has_pitch
    # written from the first to the last token of a cell: one that is not stated is overwritten by the next
    ids[code_at - has_pitch - has_duration] = cells.duration + vocabulary.offset(Kind.DURATION)
    ids[code_at - has_pitch] = cells.pitch + vocabulary.offset(Kind.PITCH)
    _write_codes(ids, cells.codes, has_code, code_at, n_codes)
    ids[(code_at + n_codes)[has_velocity]] = cells.velocity[has_velocity] + vocabulary.offset(Kind.VELOCITY)
    return ids


def _write_codes(
    ids: NDArray[np.int64],
    codes: NDArray[np.integer],
    has_code: NDArray[np.bool_],
    code_at: NDArray[np.int64],
    n_codes: NDArray[np.unsignedinteger],
) -> None:
    """Writes codes [R, 8] from `code_at` [R] on, those of a cell next to each other."""
    ids[code_at] = codes[:, 0]
    several = np.flatnonzero(n_codes > 1)  # the few cells of several codes
    row, column = np.nonzero(has_code[several, 1:])
    place = has_code[several].cumsum(axis=1)[row, column + 1] - 1
    ids[code_at[several[row]] + place] = codes[several[row], column + 1]


class ReadCells(NamedTuple):
    """Cells read from a sequence, in ascending order of (beat, pitch).

    Attributes:
        code_ids: [C, 8] codes in the layout of `Codebook.encode`.
        beat: [C] beats.
        pitch: [C] pitches.
        last: [C] positions of the cells' last tokens.
    """

    code_ids: NDArray[np.int64]
    beat: NDArray[np.int64]
    pitch: NDArray[np.int64]
    last: NDArray[np.int64]


class Reading(NamedTuple):
    """What a sequence of any ids says.

    Attributes:
        tuning: Tuning of the tempo bins, 0 where none is stated.
        tempo_bin: [B] tempo bins.
        bar_position: [B] positions in the bar from 1, `UNKNOWN` where none is stated.
        cells: C cells.
        untied: [C] bool, cells that must begin with a strike because they are no tied cells; None where what sounds
            before a cell decides.
        used: Number of ids that are used, less the number of those that are missing.
    """

    tuning: int
    tempo_bin: NDArray[np.int64]
    bar_position: NDArray[np.int64]
    cells: ReadCells
    untied: NDArray[np.bool_] | None
    used: int


class SequenceReader:
    """Reads ids along a grammar and leaves out those that are not well-formed.

    Left out are: controls; tokens before the first tempo except BOS and the first tuning; tokens after the first EOS
    except PAD; cells that break off, are all silent, or do not ascend; tokens where the grammar does not allow them.
    A tuning that is missing between BOS and the first tempo counts as one. See `TieReader` for ties.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar, self._vocabulary = grammar, grammar.vocabulary
        kinds = np.where(np.isin(grammar.kind_of, CONTROLS), -1, grammar.kind_of.astype(np.int8))
        self._kind_or_none = np.append(kinds, -1).astype(np.int8)  # −1 for numbers that are no ids

    @cached_property
    def _table(self) -> NDArray[np.int8]:
        """The grammar's table with a last column, never allowed, for numbers that are no ids."""
        return np.pad(self._grammar.table, ((0, 0), (0, 1)), constant_values=ILLEGAL)

    def read(self, ids: NDArray[np.int64]) -> Reading:
        """Reads any whole numbers [T]."""
        kinds, used = self._kinds(ids)
        tempo_at = np.flatnonzero(kinds == _TEMPO)
        tempo_bin = ids[tempo_at] - self._vocabulary.offset(Kind.TEMPO)
        tuning, used_by_tuning = self._tuning(ids, kinds, tempo_at)
        used += used_by_tuning
        bar_position = self._positions(ids, kinds, tempo_at)
        if self._grammar.ties == "repeat":
            cells, used_by_cells = self._read_cells(ids, kinds, tempo_at)
            used += tempo_bin.size + int((bar_position != UNKNOWN).sum()) + used_by_cells
            return Reading(tuning, tempo_bin, bar_position, cells, None, used)
        kinds[
            kinds == _BOS
        ] = -1  # BOS and tunings count above, and what follows them is read without them, too
        kinds[kinds == _TUNING] = -1
        found = TieReader(self._grammar).read(ids.tolist(), kinds.tolist())
        kept = np.flatnonzero(self._sounds(found.code_ids))
        kept = kept[np.lexsort((found.pitch[kept], found.beat[kept]))]
        cells = ReadCells(found.code_ids[kept], found.beat[kept], found.pitch[kept], found.last[kept])
        used += found.used - found.missing
        return Reading(tuning, tempo_bin, bar_position, cells, ~found.tied[kept], used)

    def has_velocity(self, code_ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """[C] whether cells of these codes [C, 8] carry a velocity token."""
        strikes = self._grammar.strikes
        if strikes is None:
            return np.full(len(code_ids), self._grammar.velocity)
        any_strike: NDArray[np.bool_] = ((code_ids >= 0) & strikes[code_ids]).any(axis=1)
        return any_strike

    def _kinds(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int8], int]:
        """Kinds [T + 10], −1 for no ids and behind EOS; and how many of BOS, EOS and PAD stand where they may."""
        size = self._vocabulary.size
        inside = ids.view(np.uint64) < size  # a negative number is a huge one
        kinds = np.full(ids.size + _LONGEST_CELL, -1, np.int8)
        kinds[: ids.size] = self._kind_or_none[np.where(inside, ids, size)]
        used = int(ids.size > 0 and ids[0] == self._vocabulary.bos)
        ends = np.flatnonzero(kinds == _EOS)
        if ends.size:
            end = int(ends[0])
            used += int((kinds[:end] == _TEMPO).any()) + int((kinds[end + 1 :] == _PAD).sum())
            kinds[end:] = -1
        return kinds, used

    def _tuning(
        self, ids: NDArray[np.int64], kinds: NDArray[np.int8], tempo_at: NDArray[np.intp]
    ) -> tuple[int, int]:
        """The tuning that a sequence states, 0 for none; and 1 if it is stated, −1 if it is missing, else 0."""
        if not self._grammar.tuned:
            return 0, 0
        stated = np.flatnonzero(kinds[: tempo_at[0] if tempo_at.size else ids.size] == _TUNING)
        if stated.size:
            return int(ids[stated[0]]) - self._vocabulary.offset(Kind.TUNING), 1
        return 0, -int(tempo_at.size > 0 and ids[0] == self._vocabulary.bos)

    def _positions(
        self, ids: NDArray[np.int64], kinds: NDArray[np.int8], tempo_at: NDArray[np.intp]
    ) -> NDArray[np.int64]:
        """[B] the position in the bar that the token behind each tempo states, or `UNKNOWN`."""
        position = np.full(tempo_at.size, UNKNOWN, np.int64)
        if self._grammar.bars:
            stated = kinds[tempo_at + 1] == _BAR
            position[stated] = ids[tempo_at[stated] + 1] - self._vocabulary.offset(Kind.BAR) + 1
        return position

    def _read_cells(
        self, ids: NDArray[np.int64], kinds: NDArray[np.int8], tempo_at: NDArray[np.intp]
    ) -> tuple[ReadCells, int]:
        """The cells of a sequence in which every cell begins with its pitch, and the number of their tokens."""
        pitch_at = np.flatnonzero(kinds == _PITCH)
        length = self._cell_lengths(kinds, pitch_at)
        complete = (length > 0) & (np.searchsorted(tempo_at, pitch_at) > 0)
        pitch_at, length = pitch_at[complete], length[complete]
        code_ids = codes_behind(ids, kinds, pitch_at)
        beat = np.searchsorted(tempo_at, pitch_at) - 1
        pitch = ids[pitch_at] - self._vocabulary.offset(Kind.PITCH)
        kept = np.flatnonzero(self._sounds(code_ids))
        key = beat[kept] * 128 + pitch[kept]
        highest = np.maximum.accumulate(np.concatenate([[-1], key]))[:-1]
        kept = kept[key > highest]
        last = pitch_at[kept] + length[kept]
        return ReadCells(code_ids[kept], beat[kept], pitch[kept], last), int((length[kept] + 1).sum())

    def _sounds(self, code_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[C] whether codes [C, 8] are not all silent."""
        sounds = (code_ids >= 0) & ~self._grammar.silent[np.maximum(code_ids, 0)]
        any_sounds: NDArray[np.bool_] = sounds.sum(axis=1) > 0
        return any_sounds

    def _cell_lengths(self, kinds: NDArray[np.int8], pitch_at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of tokens behind each pitch that complete its cell along the table; 0 where it breaks off."""
        length = np.zeros(pitch_at.size, np.int64)
        open_cells = np.arange(pitch_at.size)
        phase = np.full(pitch_at.size, _CODES, np.int8)
        for step in range(1, _LONGEST_CELL):
            phase = self._table[phase, kinds[pitch_at[open_cells] + step]]
            length[open_cells[phase == _BEAT]] = step
            incomplete = phase >= _CODES
            open_cells, phase = open_cells[incomplete], phase[incomplete]
            if not open_cells.size:
                break
        return length


def codes_behind(
    ids: NDArray[np.int64], kinds: NDArray[np.int8], pitch_at: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[C, 8] code ids of complete cells, each at the eighth where its part begins, −1 elsewhere.

    Args:
        ids: [T].
        kinds: [T] their kinds.
        pitch_at: [C] position of the token before the first code of each cell, its pitch if it has one.
    """
    code_ids = np.full((pitch_at.size, 8), -1, np.int64)
    rows, eighth = np.arange(pitch_at.size), np.zeros(pitch_at.size, np.int64)
    for step in range(1, 9):
        at = pitch_at[rows] + step
        code_ids[rows, eighth] = ids[at]
        eighth = eighth + EIGHTHS_BY_KIND[kinds[at]]
        incomplete = eighth < 8
        rows, eighth = rows[incomplete], eighth[incomplete]
        if not rows.size:
            break
    return code_ids
