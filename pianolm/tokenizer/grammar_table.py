"""The table of the grammar of token sequences; `pianolm.tokenizer.grammar` says what the sequences look like."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

ILLEGAL = -1


class Phase(IntEnum):
    """Rows of the table: what the tokens so far end with. `CODES + n`: a cell with codes for n eighths of the beat."""

    START = 0
    OPENED = 1  # BOS
    BEAT = 2  # a tempo, its bar or a complete cell, and no tie is pending
    CODES = 3  # 3 … 10: zero to seven eighths have codes
    VELOCITY = 11  # all eight eighths have codes; the velocity is next
    ENDED = 12  # EOS
    TEMPO = 13  # a tempo that a bar may follow; without bars a tempo leads to BEAT
    DURATION = 14  # a duration bin; the pitch of its tie is next
    TIES = 15  # as BEAT, but ties are pending
    TEMPO_TIES = 16  # as TEMPO, but ties are pending
    TUNED = 17  # a tuning; the first tempo is next
    GAP = 18  # the mark of a gap
    LOWEST = 19  # the lowest pitch of the gap; its highest one is next
    BOUNDED = 20  # the highest pitch of the gap
    SUFFIX = 21  # the mark of a suffix
    PREFIX = 22  # the mark of a prefix
    MIDDLE = 23  # the mark of a middle
    LOUDNESS = 24  # a loudness; a density or a tempo is next
    DENSITY = 25  # a density; a tempo is next


N_PHASES = max(Phase) + 1
BETWEEN_CELLS = (Phase.TEMPO, Phase.BEAT)
"""Phases in which a cell, the next beat or EOS may follow."""
WITH_TIES = {Phase.BEAT: Phase.TIES, Phase.TEMPO: Phase.TEMPO_TIES}
"""The phase that takes the place of the one in the table while ties are pending."""


def transition_table(
    velocity: bool,
    ties: str = "repeat",
    bars: bool = False,
    exact: bool = True,
    tuned: bool = False,
    fill: bool = False,
    controls: bool = False,
) -> NDArray[np.int8]:
    """[phase, kind] → next phase, or `ILLEGAL`; `WITH_TIES` says what it becomes while ties are pending.

    A code that fills n eighths is allowed only where a multiple of n is filled: halves and quarters are never split by
    a coarser code.
    """
    table = np.full((N_PHASES, len(Kind)), ILLEGAL, np.int8)
    table[Phase.START, Kind.BOS] = Phase.OPENED
    if tuned:
        table[[Phase.START, Phase.OPENED], Kind.TUNING] = Phase.TUNED
    first = Phase.TUNED if tuned else Phase.OPENED
    table[[Phase.START, first, Phase.BEAT], Kind.TEMPO] = Phase.TEMPO if bars else Phase.BEAT
    table[Phase.BEAT, Kind.PITCH] = Phase.CODES
    table[Phase.BEAT, Kind.EOS] = Phase.ENDED
    table[Phase.ENDED, Kind.PAD] = Phase.ENDED
    complete = Phase.VELOCITY if velocity else Phase.BEAT
    for kind in CODE_KINDS if exact else CODE_KINDS[:-1]:
        for filled in range(0, 8, EIGHTHS_OF_KIND[kind]):
            after = filled + EIGHTHS_OF_KIND[kind]
            table[Phase.CODES + filled, kind] = complete if after == 8 else Phase.CODES + after
    if velocity:
        table[Phase.VELOCITY, Kind.VELOCITY] = Phase.BEAT
    if ties == "implicit":
        table[Phase.TIES] = table[Phase.CODES]
    elif ties == "explicit":
        table[Phase.TIES, Kind.DURATION] = Phase.DURATION
        table[Phase.DURATION, Kind.PITCH] = Phase.CODES
    if bars:
        table[Phase.TEMPO], table[Phase.TEMPO_TIES] = table[Phase.BEAT], table[Phase.TIES]
        table[Phase.TEMPO, Kind.BAR] = Phase.BEAT
        if ties != "repeat":
            table[Phase.TEMPO_TIES, Kind.BAR] = Phase.BEAT
    if fill:
        _add_marks(
            table,
            [Phase.TUNED] if tuned else [Phase.START, Phase.OPENED],
            Phase.TEMPO if bars else Phase.BEAT,
        )
    if controls:
        _add_controls(table)
    return table


def _add_controls(table: NDArray[np.int8]) -> None:
    """Adds loudness and density, in this order, wherever a tempo may come.

    Args:
        table: [phase, kind], changed in place.
    """
    before = [phase for phase in Phase if table[phase, Kind.TEMPO] != ILLEGAL]
    table[before, Kind.LOUDNESS] = Phase.LOUDNESS
    table[[*before, Phase.LOUDNESS], Kind.DENSITY] = Phase.DENSITY
    table[[Phase.LOUDNESS, Phase.DENSITY], Kind.TEMPO] = table[Phase.BEAT, Kind.TEMPO]


def _add_marks(table: NDArray[np.int8], first: list[Phase], beat: Phase) -> None:
    """Adds the marks of fill sequences to a table.

    Args:
        table: [phase, kind], changed in place.
        first: Phases in which the first tempo may come.
        beat: Phase after a tempo.
    """
    between = list(BETWEEN_CELLS) if beat == Phase.TEMPO else [Phase.BEAT]
    table[first, Kind.GAP] = Phase.GAP
    table[Phase.GAP, Kind.PITCH], table[Phase.LOWEST, Kind.PITCH] = Phase.LOWEST, Phase.BOUNDED
    table[[Phase.GAP, Phase.BOUNDED, Phase.SUFFIX, Phase.PREFIX, Phase.MIDDLE], Kind.TEMPO] = beat
    table[between, Kind.SUFFIX] = Phase.SUFFIX
    table[Phase.SUFFIX, Kind.EOS] = Phase.ENDED
    table[[Phase.SUFFIX, Phase.ENDED, *between], Kind.PREFIX] = Phase.PREFIX
    table[[Phase.PREFIX, *between], Kind.MIDDLE] = Phase.MIDDLE
