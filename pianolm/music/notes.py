"""Notes in seconds: one structured NumPy array per piece."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError

NOTE_DTYPE = np.dtype([("onset_sec", "<f8"), ("offset_sec", "<f8"), ("pitch", "u1"), ("velocity", "u1")])
"""One note: onset and offset in seconds, MIDI pitch 0–127, MIDI velocity 1–127."""

Notes = NDArray[np.void]


def make_notes(
    onset_sec: ArrayLike, offset_sec: ArrayLike, pitch: ArrayLike, velocity: ArrayLike, name: str = "notes"
) -> Notes:
    """Packs four arrays of length N into a note array sorted by (onset, pitch).

    Args:
        onset_sec: [N] seconds.
        offset_sec: [N] seconds; at or after the onset (a note of zero length later becomes one frame long).
        pitch: [N] 0–127.
        velocity: [N] 1–127.
        name: Name of the source, such as a path, for error messages.

    Raises:
        UserError: The lengths differ, a time is not finite, or a value is out of range.
    """
    onset, offset = np.asarray(onset_sec, np.float64), np.asarray(offset_sec, np.float64)
    pitches, velocities = np.asarray(pitch), np.asarray(velocity)
    sizes = {onset.size, offset.size, pitches.size, velocities.size}
    if len(sizes) != 1:
        raise UserError(
            f"{name}: arrays of {sorted(sizes)} notes; onset, offset, pitch and velocity need one length"
        )
    if not (np.isfinite(onset).all() and np.isfinite(offset).all()):
        raise UserError(f"{name}: a note time is not a finite number of seconds; remove or mend that note")
    if (offset < onset).any():
        raise UserError(f"{name}: a note ends before it starts; mend or remove that note")
    _check_range(pitches, 0, "pitch", name)
    _check_range(velocities, 1, "velocity", name)
    notes = np.empty(onset.size, NOTE_DTYPE)
    notes["onset_sec"], notes["offset_sec"] = onset, offset
    notes["pitch"], notes["velocity"] = pitches, velocities
    return sort_notes(notes)


def sort_notes(notes: Notes) -> Notes:
    """Sorts notes by (onset, pitch), stably. May modify its argument: ascending onsets are sorted in place."""
    onset, pitch = np.ascontiguousarray(notes["onset_sec"]), notes["pitch"]
    if (onset[1:] < onset[:-1]).any():
        return notes[np.lexsort((pitch, onset))]
    tied = np.zeros(onset.size + 1, bool)
    tied[1:-1] = onset[1:] == onset[:-1]
    chords = np.flatnonzero(tied[1:] | tied[:-1])
    sorted_chords = chords[np.lexsort((pitch[chords], onset[chords]))]
    if (sorted_chords != chords).any():
        notes[chords] = notes[sorted_chords]
    return notes


def is_flat(notes: Notes) -> bool:
    """Whether the velocities carry no dynamics: there is at most one distinct velocity."""
    return notes.size == 0 or bool((notes["velocity"] == notes["velocity"][0]).all())


def _check_range(values: NDArray[np.generic], low: int, field: str, name: str) -> None:
    if values.size and (values.min() < low or values.max() > 127):
        value = values.min() if values.min() < low else values.max()
        raise UserError(
            f"{name}: {field} {value} found, expected {low}–127; the file is damaged or not MIDI 1.0"
        )
