"""What must stay the same when a piece is written as MIDI and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm import Piece
from pianolm.music.cells import Collisions, resolve_notes

_TOLERANCE_SEC = 1e-3


def differences(piece: Piece, again: Piece) -> list[str]:
    """Differences between a piece and the same piece after writing and reading, in times from the first beat on.

    Beats, bars and resolved notes are compared: in frames exactly, in seconds within 1 ms.
    """
    found = []
    if again.beats_sec.size != piece.beats_sec.size:
        return [f"{again.n_beats} beats for {piece.n_beats}"]
    away_sec = np.abs(
        _from_first_beat(again.beats_sec, again) - _from_first_beat(piece.beats_sec, piece)
    ).max()
    if away_sec > _TOLERANCE_SEC:
        found.append(f"beats differ by {away_sec} s")
    if not np.array_equal(again.bar_starts, piece.bar_starts):
        found.append(f"bars at {again.bar_starts} for {piece.bar_starts}")
    if not np.array_equal(again.frame_notes, piece.frame_notes):
        return [*found, f"notes {again.frame_notes} for {piece.frame_notes}"]
    if again.collisions != Collisions():
        found.append(f"notes overlap: {again.collisions}")
    for field in ("onset_sec", "offset_sec"):
        ours, theirs = (resolve_notes(p.notes, p.beats_sec)[0][field] for p in (piece, again))
        away_sec = np.abs(_from_first_beat(theirs, again) - _from_first_beat(ours, piece)).max(initial=0)
        if away_sec > _TOLERANCE_SEC:
            found.append(f"{field} differs by {away_sec} s")
    return found


def _from_first_beat(times_sec: np.ndarray, piece: Piece) -> np.ndarray:
    return times_sec - piece.beats_sec[0]


def differences_over_round_trips(piece: Piece, path: Path, times: int) -> list[str]:
    """The first differences when a piece is written to a path and read again several times."""
    again = piece
    for _ in range(times):
        again.to_midi(path)
        again = Piece.from_midi(path)
        if found := differences(piece, again):
            return found
    return []
