"""Ties: notes that sound on over a beat line (`tokenizer.ties=implicit` and `explicit`).

With `ties=repeat` a note held over from the beat before is a cell like any other. With the other two layouts a beat
begins with one *tied cell* for every pitch that sounds at the end of the beat before, in ascending order of pitch. The
codes of a tied cell tell how the note goes on, later strikes of its key included; all-silent codes end it at the beat
line. Cells that begin with a strike or with silence follow and name their pitch. An implicit tie consists of its codes
and, where they strike a note, a velocity. An explicit tie states the duration bin and the pitch first. Both follow
from the tokens before, so that a model need not work them out.

Here are the duration bins, the ties that a reader of tokens keeps track of (`Ties`), and the order of cells and tied
cells in a sequence. `pianolm.tokenizer.tie_reader` reads such sequences.

Shapes: C cells, R rows (cells and tied cells in the order of their tokens).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells
from pianolm.tokenizer.vocabulary import DURATION_BINS

TIES = ("repeat", "implicit", "explicit")
"""Values of `tokenizer.ties`."""

_LONGEST_OF_BIN = np.array([3, 6, 9, 12, 18, 24, 36, 48, 60, 72, 96, 144, 192, 288, 384])
"""Longest duration in frames of each duration bin but the last, which has no upper bound."""
MAX_TIE_FRAMES = int(_LONGEST_OF_BIN[-1]) + 1
"""Durations are clipped here: all that are longer lie in the last bin."""
assert _LONGEST_OF_BIN.size + 1 == DURATION_BINS

_FRAME_BITS = MAX_TIE_FRAMES.bit_length()
_FRAME_MASK = (1 << _FRAME_BITS) - 1


def duration_bins(frames: NDArray[np.integer]) -> NDArray[np.int64]:
    """Durations [n] in frames to their bins [n]."""
    return np.searchsorted(_LONGEST_OF_BIN, frames)


def shortest_frames(duration_bin: int) -> int:
    """The shortest duration in frames of a bin."""
    return int(_LONGEST_OF_BIN[duration_bin - 1]) + 1 if duration_bin else 1


class Ties(NamedTuple):
    """Ties of the beat that is being read. Pitches are bits of masks: bit p for MIDI pitch p.

    All stay 0 with `ties=repeat`.

    Attributes:
        pending: Pitches whose tied cell is still to come in this beat. While a tied cell is open, it is that of the
            lowest one.
        sounding: Pitches that sound at the end of this beat, as far as it has been read: the ties of the next beat.
        tied: Pitches whose tied cell of this beat was not all silent; no other cell of the beat may name them.
        durations: Only of explicit ties: for each pitch that is pending or sounding, the frames from its last strike
            to the beat line that it sounds over, at most `MAX_TIE_FRAMES`, `_FRAME_BITS` bits a pitch.
        open_frames: Only of explicit ties: the frames from the last strike to the end of the codes that the open cell
            has so far, 0 where they end in silence.
    """

    pending: int = 0
    sounding: int = 0
    tied: int = 0
    durations: int = 0
    open_frames: int = 0

    @property
    def pending_pitch(self) -> int:
        """The pitch whose tied cell is open or comes next; −1 where none is pending."""
        return (self.pending & -self.pending).bit_length() - 1

    @property
    def pending_frames(self) -> int:
        """Frames from the last strike of `pending_pitch` to the beginning of this beat."""
        return self.durations >> self.pending_pitch * _FRAME_BITS & _FRAME_MASK

    def next_beat(self) -> Ties:
        """Ties at the beginning of the next beat."""
        return Ties(pending=self.sounding, durations=self.durations)

    def after_code(self, frames: int, since_strike: int) -> Ties:
        """Ties after a code of the open cell, where they are explicit.

        Args:
            frames: Length of the code.
            since_strike: Frames from its last strike to its end: 0 where it does not sound in its last frame, −1 where
                it does and has no strike. Sound at its beginning that follows silence counts as struck there.
        """
        if since_strike < 0:
            since_strike = min(self.open_frames + frames, MAX_TIE_FRAMES)
        return Ties(self.pending, self.sounding, self.tied, self.durations, since_strike)

    def after_cell(self, pitch: int, sounded: bool, sounds_to_end: bool) -> Ties:
        """Ties after the last code of the open cell.

        Args:
            pitch: Pitch of the cell, if it is no tied cell.
            sounded: Whether its codes are not all silent.
            sounds_to_end: Whether the last of them sounds in its last frame.
        """
        tied_cell = self.pending & -self.pending
        bit = tied_cell or 1 << pitch
        durations = self.durations
        if durations or self.open_frames:
            shift = (bit.bit_length() - 1) * _FRAME_BITS
            durations &= ~(_FRAME_MASK << shift)
            durations |= self.open_frames << shift
        return Ties(
            pending=self.pending ^ tied_cell,
            sounding=self.sounding | (bit if sounds_to_end else 0),
            tied=self.tied | (tied_cell if sounded else 0),
            durations=durations,
        )

    def without_pending(self, pitches: int) -> Ties:
        """Ties after those of some pitches (a mask) are given up: their notes end at the beat line."""
        return self._replace(pending=self.pending & ~pitches)


NO_TIES = Ties()


class Rows(NamedTuple):
    """Cells and tied cells in the order of their tokens.

    Attributes:
        cell: [R] index of the cell that each row writes, −1 for a tied cell that is all silent.
        beat: [R] its beat.
        pitch: [R] its pitch.
        tied_frames: [R] for a tied cell the frames from the last strike of its pitch to the beginning of the beat, at
            most `MAX_TIE_FRAMES`; −1 for other cells.
    """

    cell: NDArray[np.int64]
    beat: NDArray[np.int64]
    pitch: NDArray[np.int64]
    tied_frames: NDArray[np.int64]


def rows_with_ties(cells: Cells) -> Rows:
    """The rows in which cells [C] are written with implicit or explicit ties."""
    key = cells.beat.astype(np.int64) << 7 | cells.pitch
    sounds_to_end = cells.sustain >> np.uint64(FRAMES - 1) != 0
    tied = key[sounds_to_end] + 128  # (beat, pitch) of every tied cell: one beat later
    tied = tied[tied < cells.n_beats << 7]
    begins_held = cells.sustain & ~cells.onset & np.uint64(1) != 0
    place = np.searchsorted(tied, key)
    goes_on = begins_held & (np.append(tied, -1)[place] == key)
    ended = np.ones(tied.size, bool)
    ended[place[goes_on]] = False
    n_ended = int(ended.sum())
    cell = np.concatenate([np.arange(key.size), np.full(n_ended, -1)])
    untied = np.concatenate([~goes_on, np.zeros(n_ended, bool)])
    key = np.concatenate([key, tied[ended]])
    beat, pitch = key >> 7, key & 127
    since_strike = np.concatenate([frames_since_strike(cells.onset, FRAMES), np.full(n_ended, -1)])
    since_strike = np.where(untied & (since_strike < 0), FRAMES, since_strike)
    tied_frames = np.where(untied, -1, _frames_before(beat, since_strike, np.lexsort((untied, beat, pitch))))
    order = np.argsort((beat << 8) | untied << 7 | pitch, kind="stable")
    return Rows(cell[order], beat[order], pitch[order], tied_frames[order])


def _frames_before(
    beat: NDArray[np.int64], since_strike: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[R] frames from the last strike of a row's pitch in earlier rows to the beginning of the row's beat.

    Args:
        beat: [R] beat of each row.
        since_strike: [R] frames from the last strike of a row to its end, −1 where it has none.
        order: [R] rows sorted by pitch, those of one pitch in temporal order. In one beat a pitch may have two: an
            all-silent tied cell, and a cell that strikes it again.
    """
    last_struck = np.maximum.accumulate(np.where(since_strike[order] >= 0, np.arange(order.size), 0))
    before = order[np.concatenate([[0], last_struck])[:-1]]  # meaningless for rows that are no tied cells
    frames = np.empty(order.size, np.int64)
    frames[order] = since_strike[before] + FRAMES * (beat[order] - beat[before] - 1)
    return np.minimum(frames, MAX_TIE_FRAMES)


def frames_since_strike(onset: NDArray[np.uint64], frames: int) -> NDArray[np.int64]:
    """[K] frames from the last strike of onset masks [K] to the end of their patterns, −1 where nothing is struck.

    Args:
        onset: [K] masks.
        frames: Length of each pattern.
    """
    length = np.frexp(onset.astype(np.float64))[
        1
    ]  # bits up to the highest set one; a float64 holds 48 bits exactly
    return np.where(onset > 0, frames + 1 - length, -1).astype(np.int64)
