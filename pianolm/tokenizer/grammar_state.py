"""Where a token sequence stands in its grammar."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from pianolm.tokenizer.grammar_table import BETWEEN_CELLS, Phase
from pianolm.tokenizer.ties import NO_TIES, Ties
from pianolm.tokenizer.vocabulary import Kind

# Plain numbers: a look-up of an enum member costs more than a step of validation.
_TEMPO = int(Kind.TEMPO)


class Part(IntEnum):
    """Parts of a fill sequence, each behind its mark; BOS and tuning before them are plain, as is all without marks."""

    PLAIN = 0
    GAP = 1
    SUFFIX = 2
    PREFIX = 3
    MIDDLE = 4


class Fill(NamedTuple):
    """Where a fill sequence stands.

    Attributes:
        part: The part.
        grid: Tempo id and bar id (−1 for none) of each beat of the gap; in the middle, of those that have not begun.
        bar: In the middle, the bar id that must follow the tempo, −1 for none.
    """

    part: int = Part.PLAIN
    grid: tuple[tuple[int, int], ...] = ()
    bar: int = -1


NO_FILL = Fill()


class State(NamedTuple):
    """Where a sequence stands.

    Attributes:
        phase: Row of the table.
        last_pitch: Last pitch that a cell of the beat named, −1 before the first. Explicit ties do not count.
        sounding: Whether the codes of the open cell so far are not all silent.
        struck: Whether one of them strikes a note, where that decides whether a velocity follows.
        ties: Ties of the beat.
        fill: Where a fill sequence stands.
    """

    phase: int = Phase.START
    last_pitch: int = -1
    sounding: bool = False
    struck: bool = False
    ties: Ties = NO_TIES
    fill: Fill = NO_FILL

    @property
    def between_cells(self) -> bool:
        """Whether a beat has begun, everything begun in it is complete, and the next beat may begin."""
        return self.phase in BETWEEN_CELLS

    @property
    def pitch(self) -> int:
        """The pitch whose tied cell is open or comes next; else the last one that the beat named."""
        return self.ties.pending_pitch if self.ties.pending else self.last_pitch


def fill_after(fill: Fill, token: int, kind: int) -> Fill:
    """A fill sequence after a tempo or bar that may come there."""
    if fill.part == Part.GAP:
        if kind == _TEMPO:
            return fill._replace(grid=(*fill.grid, (token, -1)))
        return fill._replace(grid=(*fill.grid[:-1], (fill.grid[-1][0], token)))
    if fill.part != Part.MIDDLE:
        return fill
    return fill._replace(grid=fill.grid[1:], bar=fill.grid[0][1]) if kind == _TEMPO else fill._replace(bar=-1)
