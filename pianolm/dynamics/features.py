"""What the dynamics model reads of a note: where it stands, how long it is, and what sounds beside it.

Shapes: N notes, sorted by onset and pitch; F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.data.beat_notes import BeatNotes
from pianolm.music.bars import bar_positions
from pianolm.music.beats import FRAMES

HEAD_WIDTH = 32
"""Width of an attention head of the network, which reads the features."""
LONGEST_BAR = 12
"""Positions in a bar and lengths of bars are counted up to here; 0 is unknown."""
VELOCITY_BINS = 32
BIN_WIDTH = 4
UNKNOWN_VELOCITY = VELOCITY_BINS
"""Bin of a velocity that is to be found."""
BIN_CENTRES = np.arange(VELOCITY_BINS) * BIN_WIDTH + (BIN_WIDTH - 1) / 2

_SHORTEST_SEC, _LONGEST_SEC = 0.01, 8.0
_USUAL_BEAT_SEC = 0.6
_NAMES = (
    "duration_beat",
    "duration_sec",
    "since_previous_sec",
    "until_next_sec",
    "since_same_pitch_beat",
    "tempo",
    "is_top",
    "is_bottom",
    "chord_size",
    "above_lowest",
    "below_highest",
)
FEATURES = len(_NAMES)
"""F."""


class NoteFeatures(NamedTuple):
    """The features of notes.

    Attributes:
        pitch: [N] int64.
        frame: [N] int64, frame of the onset in its beat.
        bar_position: [N] int64, beat in its bar from 1 on; 0 unknown.
        bar_length: [N] int64, beats of the bar; 0 unknown.
        onset_beat: [N] float32.
        values: [N, F] float32, about −2 to 2: logarithms of times, and neighbours in the chord.
    """

    pitch: NDArray[np.int64]
    frame: NDArray[np.int64]
    bar_position: NDArray[np.int64]
    bar_length: NDArray[np.int64]
    onset_beat: NDArray[np.float32]
    values: NDArray[np.float32]


def note_features(music: BeatNotes) -> NoteFeatures:
    """The features of a piece's notes, none of which depends on velocities."""
    place = np.rint(music.onset_beat * FRAMES).astype(np.int64)
    beat = np.minimum(place // FRAMES, music.n_beats - 1)
    position = bar_positions(music.bar_start, music.n_beats)
    columns = _columns(music, place, beat)
    return NoteFeatures(
        music.pitch,
        place % FRAMES,
        np.minimum(position[beat], LONGEST_BAR),
        np.minimum(_bar_lengths(music)[beat], LONGEST_BAR),
        music.onset_beat.astype(np.float32),
        np.stack([columns[name] for name in _NAMES], axis=1).astype(np.float32),
    )


def _bar_lengths(music: BeatNotes) -> NDArray[np.int64]:
    """[B] beats of the bar in which each beat lies; 0 before the first bar and where bars are unknown."""
    starts = music.bar_start[music.bar_start <= music.n_beats]
    if starts.size < 2:
        return np.zeros(music.n_beats, np.int64)
    bar = np.searchsorted(starts, np.arange(music.n_beats), side="right") - 1
    lengths = np.diff(starts)
    return np.where(bar >= 0, lengths[np.clip(bar, 0, lengths.size - 1)], 0)


def _columns(
    music: BeatNotes, place: NDArray[np.int64], beat: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    onset_sec, end_sec = music.seconds(music.onset_beat), music.seconds(music.end_beat)
    _, first, chord, count = np.unique(place, return_index=True, return_inverse=True, return_counts=True)
    chord_sec = onset_sec[first]
    gap_sec = np.diff(chord_sec, prepend=chord_sec[0] - _LONGEST_SEC, append=chord_sec[-1] + _LONGEST_SEC)
    last = first + count - 1
    rank = np.arange(place.size) - first[chord]
    lowest, highest = music.pitch[first][chord], music.pitch[last][chord]
    return {
        "duration_beat": _log(music.end_beat - music.onset_beat, 1.0),
        "duration_sec": _log(end_sec - onset_sec, 0.3),
        "since_previous_sec": _log(gap_sec[:-1][chord], 0.3),
        "until_next_sec": _log(gap_sec[1:][chord], 0.3),
        "since_same_pitch_beat": _log(_since_same_pitch(music), 1.0),
        "tempo": _log(np.diff(music.beats_sec)[beat], _USUAL_BEAT_SEC),
        "is_top": (rank == count[chord] - 1).astype(np.float64),
        "is_bottom": (rank == 0).astype(np.float64),
        "chord_size": np.log2(count[chord]) / 2,
        "above_lowest": (music.pitch - lowest) / 12,
        "below_highest": (highest - music.pitch) / 12,
    }


def _log(value: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    """Logarithm of times, in halves of octaves around a usual one."""
    return np.log2(np.clip(value, _SHORTEST_SEC, _LONGEST_SEC) / usual) / 2


def _since_same_pitch(music: BeatNotes) -> NDArray[np.float64]:
    """[N] beats since a note of the same pitch was struck; the most that is counted where none was."""
    order = np.lexsort((music.onset_beat, music.pitch))
    onset, pitch = music.onset_beat[order], music.pitch[order]
    since = np.full(order.size, _LONGEST_SEC)
    since[order[1:]] = np.where(pitch[1:] == pitch[:-1], np.diff(onset), _LONGEST_SEC)
    return since
