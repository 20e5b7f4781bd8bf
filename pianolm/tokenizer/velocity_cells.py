"""The velocities of a part of a piece, whose first beats may lack the notes that sound on into them.

Shapes: T tokens, C cells with a velocity token, S segments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, segment_starts
from pianolm.tokenizer.sequence import codes_behind
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_BY_KIND, Kind

Ids = NDArray[np.int64]
_BIT = np.uint64(1) << np.arange(FRAMES, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class VelocityCells:
    """The cells of a sequence that have a velocity token.

    Attributes:
        at: [C] positions of their velocity tokens.
        cells: The cells, whose beats count from the first tempo; −1 before it. Their pitches are not read.
    """

    at: NDArray[np.int64]
    cells: Cells

    @property
    def struck(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Beat and velocity of each note that they strike."""
        starts = segment_starts(self.cells.sustain, self.cells.onset)[:, None] & _BIT != 0
        strikes = (self.cells.onset[:, None] & _BIT != 0)[starts]
        beat = np.repeat(self.cells.beat.astype(np.int64), starts.sum(axis=1))
        return beat[strikes], self.cells.segment_velocity[strikes].astype(np.int64)


def read_velocities(tokenizer: PianoTokenizer, ids: Ids) -> VelocityCells:
    """The cells of any part [T] of a piece that have a velocity token and all of their codes."""
    assert tokenizer.codec is not None, "a tokenizer with velocities"
    v = tokenizer.vocabulary
    kinds = v.kind_of[ids].astype(np.int8)
    is_code = np.isin(kinds, CODE_KINDS)
    before = np.maximum.accumulate(np.where(is_code, -1, np.arange(ids.size)))  # last token that is no code
    at = np.flatnonzero(kinds == Kind.VELOCITY)
    at = at[at > 0]
    opened = before[at - 1]
    eighths = np.concatenate([[0], np.cumsum(EIGHTHS_BY_KIND[kinds])])
    complete = (opened >= 0) & (eighths[at] - eighths[opened + 1] == 8)
    at, opened = at[complete], opened[complete]
    sustain, onset = tokenizer.codebook.decode(codes_behind(ids, kinds, opened))
    codes = np.minimum(ids[at] - v.offset(Kind.VELOCITY), tokenizer.codec.codebook_size - 1)
    beat = np.searchsorted(np.flatnonzero(kinds == Kind.TEMPO), at) - 1
    velocity = tokenizer.codec.decode(codes, sustain, onset)
    pitch = np.zeros(at.size, np.uint8)
    n_beats = int(beat.max(initial=-1)) + 1
    return VelocityCells(at, Cells(beat.astype(np.int32), pitch, sustain, onset, velocity, n_beats))


def with_louder(tokenizer: PianoTokenizer, ids: Ids, by: int, first_beat: int = -1) -> Ids:
    """A part of a piece with velocities higher by some MIDI units, within 1 to 127, from a beat on."""
    assert tokenizer.codec is not None, "a tokenizer with velocities"
    found = read_velocities(tokenizer, ids)
    velocity = np.clip(found.cells.segment_velocity.astype(np.int64) + by, 1, 127).astype(np.uint8)
    codes = tokenizer.codec.encode(replace(found.cells, segment_velocity=velocity)).astype(np.int64)
    changed, is_louder = ids.copy(), found.cells.beat >= first_beat
    changed[found.at[is_louder]] = codes[is_louder] + tokenizer.vocabulary.offset(Kind.VELOCITY)
    return changed
