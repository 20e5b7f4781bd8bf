"""Gaps: beats of a piece whose notes are written anew, and pieces in which they are filled.

A note belongs to the beat of the frame it begins in. What begins in a gap is left out, what begins elsewhere stays as
it is, also where it sounds in the gap. What sounds behind a gap stays, too: where a note that is left out sounded on
behind it, the note that sounds there in its place ends when that one did.

Shapes: N notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.beats import FRAMES
from pianolm.music.cells import (
    Cells,
    FrameNotes,
    frames_to_cells,
    frames_to_seconds,
    notes_to_frames,
    resolve_notes,
    seconds_to_frames,
)
from pianolm.music.notes import NOTE_DTYPE, sort_notes
from pianolm.music.piece import Piece

LOWEST_PITCH, HIGHEST_PITCH = 0, 127


@dataclass(frozen=True)
class Gap:
    """What of a piece is written anew.

    Attributes:
        first: First beat.
        stop: The beat after the last.
        lowest: Lowest pitch that is written anew.
        highest: Highest one.
    """

    first: int
    stop: int
    lowest: int = LOWEST_PITCH
    highest: int = HIGHEST_PITCH

    @property
    def n_beats(self) -> int:
        """Number of beats."""
        return self.stop - self.first

    @property
    def has_register(self) -> bool:
        """Whether other pitches stay."""
        return (self.lowest, self.highest) != (LOWEST_PITCH, HIGHEST_PITCH)

    def holds(self, pitch: NDArray[np.integer], onset: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[N] whether notes with these pitches and first frames begin in it."""
        in_time = (onset >= self.first * FRAMES) & (onset < self.stop * FRAMES)
        inside: NDArray[np.bool_] = in_time & (pitch >= self.lowest) & (pitch <= self.highest)
        return inside


def gap_of(
    piece: Piece, beats: Sequence[int], pitches: Sequence[int] | None = None, name: str = "beats"
) -> Gap:
    """The gap of a piece.

    Args:
        piece: The piece.
        beats: First beat, and the beat after the last.
        pitches: Lowest and highest pitch; None for all.
        name: How error messages call the beats.

    Raises:
        UserError: The piece has no such beats, or pitches are out of range.
    """
    if len(beats) != 2 or not 0 <= beats[0] < beats[1] <= piece.n_beats:
        raise UserError(
            f"{name}={list(beats)} found, expected the first beat and the one after the last, among the beats 0 to "
            f"{piece.n_beats} of the piece"
        )
    lowest, highest = (LOWEST_PITCH, HIGHEST_PITCH) if pitches is None else pitches
    if not LOWEST_PITCH <= lowest <= highest <= HIGHEST_PITCH:
        raise UserError(
            f"pitches={[lowest, highest]} found, expected the lowest and highest MIDI pitch, 0 to 127"
        )
    return Gap(int(beats[0]), int(beats[1]), int(lowest), int(highest))


def beats_of_bars(piece: Piece, bars: Sequence[int], name: str = "bars") -> tuple[int, int]:
    """The beats of some bars: the first beat, and the beat after the last.

    Args:
        piece: The piece.
        bars: First bar, counted from 1, and the bar after the last.
        name: How error messages call them.

    Raises:
        UserError: The piece has no bars, or not these.
    """
    starts = piece.bar_starts
    if not starts.size:
        raise UserError(f"{name}={list(bars)} found, but no bars of the piece are known; give beats")
    starts = starts if starts[-1] == piece.n_beats else np.append(starts, piece.n_beats)
    if len(bars) != 2 or not 1 <= bars[0] < bars[1] <= starts.size:
        raise UserError(
            f"{name}={list(bars)} found, expected the first bar and the one after the last, among the bars 1 to "
            f"{starts.size} of the piece"
        )
    return int(starts[bars[0] - 1]), int(starts[bars[1] - 1])


@dataclass(frozen=True, eq=False)
class GappedPiece:
    """A piece with a gap.

    Attributes:
        piece: The whole piece.
        gap: The gap.
        left_out: [N] bool, its notes that are left out.
        kept: Cells of the gap's beats (beat 0 is the gap's first one) that belong to notes that stay.
        tails: When each pitch ends, in seconds, that sounds on behind the gap though its note is left out.
    """

    piece: Piece
    gap: Gap
    left_out: NDArray[np.bool_]
    kept: Cells
    tails: dict[int, float]

    @classmethod
    def of(cls, piece: Piece, gap: Gap) -> GappedPiece:
        """Leaves out notes of a piece.

        A note that stays may be so long that its pitch is not free. Notes of a pitch that is held over the whole gap
        stay, and so does one over the end of the gap where a note that stays sounds in the last beat: a beat has one
        cell of a pitch.
        """
        end = gap.stop * FRAMES
        resolved, frames = resolve_notes(piece.notes, piece.beats_sec)
        inside = gap.holds(frames["pitch"], frames["onset"])
        over = inside & (frames["end"] > end)
        onset = np.clip(
            seconds_to_frames(piece.notes["onset_sec"], piece.beats_sec), 0, piece.n_beats * FRAMES - 1
        )
        left_out = gap.holds(piece.notes["pitch"], onset)
        staying, _ = notes_to_frames(piece.notes[~left_out], piece.beats_sec)
        staying = staying[staying["onset"] < gap.first * FRAMES]
        held, in_last = (staying["pitch"][staying["end"] > frame] for frame in (end, end - FRAMES))
        stays = (inside & np.isin(frames["pitch"], held)) | (over & np.isin(frames["pitch"], in_last))
        keys = _keys(frames["pitch"][stays], frames["onset"][stays])
        left_out &= ~np.isin(_keys(piece.notes["pitch"], onset), keys)
        kept_frames, _ = notes_to_frames(piece.notes[~left_out], piece.beats_sec)
        kept = _beats_of(frames_to_cells(kept_frames, piece.n_beats), gap)
        tails = over & ~stays
        ends = dict(
            zip(resolved["pitch"][tails].tolist(), resolved["offset_sec"][tails].tolist(), strict=True)
        )
        return cls(piece, gap, left_out, kept, ends)

    def filled(self, frames: FrameNotes, velocity: int | None = None) -> Piece:
        """The piece with new notes in its gap.

        Args:
            frames: Notes in frames that count from the piece's first beat. Those that begin in the gap and not with a
                note that stays are new.
            velocity: Of all new notes; None leaves them theirs.
        """
        piece, end, kept = self.piece, self.gap.stop * FRAMES, self.piece.notes[~self.left_out]
        onset = seconds_to_frames(kept["onset_sec"], piece.beats_sec)
        is_new = self.gap.holds(frames["pitch"], frames["onset"])
        is_new &= ~np.isin(_keys(frames["pitch"], frames["onset"]), _keys(kept["pitch"], onset))
        found = frames[is_new]
        new = np.empty(found.size, NOTE_DTYPE)
        new["onset_sec"] = frames_to_seconds(found["onset"], piece.beats_sec)
        new["offset_sec"] = frames_to_seconds(np.minimum(found["end"], end), piece.beats_sec)
        for at in np.flatnonzero(found["end"] >= end).tolist():
            new["offset_sec"][at] = self.tails.get(int(found["pitch"][at]), new["offset_sec"][at])
        new["pitch"] = found["pitch"]
        new["velocity"] = found["velocity"] if velocity is None else velocity
        return replace(piece, notes=sort_notes(np.concatenate([kept, new])))


def _beats_of(cells: Cells, gap: Gap) -> Cells:
    """The cells of a gap's beats, counted from its first one. Held ones stay held."""
    inside = (cells.beat >= gap.first) & (cells.beat < gap.stop)
    return Cells(
        beat=cells.beat[inside] - np.int32(gap.first),
        pitch=cells.pitch[inside],
        sustain=cells.sustain[inside],
        onset=cells.onset[inside],
        segment_velocity=cells.segment_velocity[np.repeat(inside, cells.segment_count)],
        n_beats=gap.n_beats,
    )


def _keys(pitch: NDArray[np.integer], onset: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] a number for each pair of pitch and first frame."""
    return pitch.astype(np.int64) << 32 | onset
