"""Tracks of a MIDI file: which ones hold piano notes, drums, other instruments or beats.

Shapes: N notes of a track. Times are in ticks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import symusic
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.midi_bytes import ADDED_TICKS

PIANO_PROGRAMS = range(8)
"""Programs of the General MIDI piano family, counted from 0."""

Programs = str | int | Sequence[int]
"""Which programs to read: "piano" (0–7), "all", a program, or several."""

_BEAT_TRACK_NAMES = frozenset({"beat", "beats", "click", "clicks", "click track", "metronome"})
_DRUM_WORDS = frozenset({"drum", "drums", "drumkit", "drumset", "kit", "percussion"})
_DRUM_PITCHES = (27, 87)
_NOTES_OFF_CONTROLS = (120, *range(123, 128))
_EVEN_FRACTION = 0.9
_PEDAL, _RESET_CONTROLS = 64, 121
_PEDAL_DOWN = 64


@dataclass(frozen=True)
class Track:
    """Notes of one instrument of one track.

    Attributes:
        name: As in the file.
        program: General MIDI program, 0–127.
        is_drum: Whether the notes are on channel 10.
        onset: [N] ticks.
        end: [N] ticks.
        pitch: [N] 0–127.
        velocity: [N] 0–127.
        pedal_tick: [P] ticks of sustain pedal events; empty unless asked for.
        pedal_down: [P] whether the pedal is down from that tick on.
        unended: How many of the notes had no end of their own.
    """

    name: str
    program: int
    is_drum: bool
    onset: NDArray[np.int64]
    end: NDArray[np.int64]
    pitch: NDArray[np.integer]
    velocity: NDArray[np.integer]
    pedal_tick: NDArray[np.int64]
    pedal_down: NDArray[np.bool_]
    unended: int = 0

    @property
    def size(self) -> int:
        """Number of notes."""
        return self.onset.size

    @property
    def family(self) -> int:
        """The program, or 0 for all piano programs: tracks of one family share their sustain pedal."""
        return 0 if self.program in PIANO_PROGRAMS else self.program


@dataclass(frozen=True)
class TrackRoles:
    """Tracks of a file by what is done with them.

    Attributes:
        music: Tracks whose notes are read.
        beats: Beat tracks; the first one gives the beats.
        drums: Drum tracks, left out.
        others: Tracks of programs that were not asked for, left out.
    """

    music: list[Track]
    beats: list[Track]
    drums: list[Track]
    others: list[Track]


def check_programs(programs: Programs, option: str = "programs") -> frozenset[int]:
    """The set of programs that an option means.

    Raises:
        UserError: The value is neither "piano" nor "all" nor programs of 0–127.
    """
    if programs == "piano":
        return frozenset(PIANO_PROGRAMS)
    if programs == "all":
        return frozenset(range(128))
    numbers = [programs] if isinstance(programs, int) else programs
    valid = not isinstance(numbers, str) and len(numbers) > 0
    if not valid or not all(
        isinstance(number, (int, np.integer)) and 0 <= number <= 127 for number in numbers
    ):
        raise UserError(
            f"{option}={programs}: expected piano, all, or a list of General MIDI programs from 0 to 127"
        )
    return frozenset(int(number) for number in numbers)


def read_track(track: symusic.core.TrackTick, with_pedal: bool = False) -> Track:
    """Converts a symusic track of a file in which `end_all_notes` has ended all notes."""
    columns = track.notes.numpy()
    if with_pedal:  # without the notes that `end_all_notes` adds
        kept = columns["time"] < ADDED_TICKS
        columns = {key: column[kept] for key, column in columns.items()}
    onset = columns["time"].astype(np.int64)
    end = onset + columns["duration"]
    unended = np.flatnonzero(end >= ADDED_TICKS)
    if unended.size:
        end[unended] = np.maximum(end[unended] - ADDED_TICKS, onset[unended])
        notes_off = np.append(_controls(track, _NOTES_OFF_CONTROLS)["time"], np.iinfo(np.int64).max)
        end[unended] = np.minimum(end[unended], notes_off[np.searchsorted(notes_off, onset[unended])])
    pedal = _controls(track, (_PEDAL, _RESET_CONTROLS) if with_pedal else ())
    return Track(
        name=track.name,
        program=track.program,
        is_drum=track.is_drum,
        onset=onset,
        end=end,
        pitch=columns["pitch"],
        velocity=columns["velocity"],
        pedal_tick=pedal["time"],
        pedal_down=(pedal["number"] == _PEDAL) & (pedal["value"] >= _PEDAL_DOWN),
        unended=unended.size,
    )


def _controls(track: symusic.core.TrackTick, numbers: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    """Times, numbers and values of the control changes with these numbers, sorted by time."""
    if not numbers:
        return {key: np.zeros(0, np.int64) for key in ("time", "number", "value")}
    columns = {key: column.astype(np.int64) for key, column in track.controls.numpy().items()}
    kept = np.flatnonzero(np.isin(columns["number"], numbers))
    kept = kept[np.argsort(columns["time"][kept], kind="stable")]
    return {key: column[kept] for key, column in columns.items()}


def assign_roles(tracks: Sequence[Track], programs: frozenset[int], ticks_per_quarter: int) -> TrackRoles:
    """Sorts tracks with notes into music, beats, drums and other instruments."""
    roles = TrackRoles([], [], [], [])
    for track in tracks:
        if not track.size:
            continue
        if track.name.strip().lower() in _BEAT_TRACK_NAMES and can_be_beats(track):
            roles.beats.append(track)
        elif track.is_drum or is_named_drums(track, ticks_per_quarter):
            roles.drums.append(track)
        elif track.program in programs:
            roles.music.append(track)
        else:
            roles.others.append(track)
    return roles


def can_be_beats(track: Track) -> bool:
    """Whether notes can be beats: of one or two pitches, short and evenly spaced.

    Short is at most half of the median interval between onsets. Evenly spaced is that of ten intervals nine differ from
    the one before by less than a factor of 2.
    """
    onset = np.unique(track.onset)
    if onset.size < 2 or np.unique(track.pitch).size > 2:
        return False
    interval = np.diff(onset)
    ratio = interval[1:] / interval[:-1]
    is_even = (ratio > 0.5) & (ratio < 2)
    is_short = (track.end - track.onset).max() <= np.median(interval) / 2
    return bool(is_short and is_even.sum() >= _EVEN_FRACTION * ratio.size)


def is_named_drums(track: Track, ticks_per_quarter: int) -> bool:
    """Whether a track is called drums, percussion or kit and its pitches and lengths can be those of drums."""
    if not track.name or not _DRUM_WORDS & set(re.findall(r"[a-z]+", track.name.lower())):
        return False
    low, high = _DRUM_PITCHES
    in_range = track.pitch.min() >= low and track.pitch.max() <= high
    return bool(in_range and (track.end - track.onset).max() <= ticks_per_quarter / 2)
