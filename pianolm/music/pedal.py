"""The sustain pedal: notes sound on while it is down.

Shapes: N notes of all tracks, P pedal spans. Times are in ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pianolm.music.tracks import Track

PEDAL_CHOICES = ("ignore", "extend")


def extend_by_pedal(music: Sequence[Track], tracks: Sequence[Track]) -> tuple[list[Track], int]:
    """Extends notes to the release of the sustain pedal, or to the next note of their pitch.

    A piano has one sustain pedal, and files write its events on any of their tracks: all tracks of one family share it.

    Args:
        music: Tracks with notes.
        tracks: All tracks of the file, among them those that hold pedal events but no notes.

    Returns:
        The tracks of `music` with later note ends, and the number of notes that became longer.
    """
    extended, count = [], 0
    for family in dict.fromkeys(track.family for track in music):
        members = [track for track in music if track.family == family]
        pedals = [track for track in tracks if track.family == family and not track.is_drum]
        for track, end in zip(members, _pedalled_ends(members, pedals), strict=True):
            count += int((end > track.end).sum())
            extended.append(replace(track, end=end))
    return extended, count


def _pedalled_ends(tracks: Sequence[Track], pedals: Sequence[Track]) -> list[NDArray[np.int64]]:
    """The note ends of each track under the pedal of the tracks `pedals`."""
    onset, end, pitch = (
        np.concatenate([getattr(track, field) for track in tracks]) for field in ("onset", "end", "pitch")
    )
    down, up = _pedal_spans(pedals, int(end.max(initial=0)))
    if down.size:
        span = np.maximum(np.searchsorted(down, end, side="right") - 1, 0)
        is_down = (end >= down[span]) & (end < up[span])
        sounding = np.where(is_down, np.minimum(up[span], _next_onset(onset, pitch)), end)
        end = np.maximum(end, sounding)
    return np.split(end, np.cumsum([track.size for track in tracks])[:-1])


def _next_onset(onset: NDArray[np.int64], pitch: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] the next later onset of the same pitch; the largest integer if there is none."""
    keys, inverse = np.unique((pitch.astype(np.int64) << 32) + onset, return_inverse=True)
    following = np.full(keys.size, np.iinfo(np.int64).max)
    same_pitch = keys[1:] >> 32 == keys[:-1] >> 32
    following[:-1][same_pitch] = (keys[1:] & 0xFFFF_FFFF)[same_pitch]
    return following[inverse]


def _pedal_spans(tracks: Sequence[Track], last_tick: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[P] ticks at which the pedal goes down and up; without a release it is held to `last_tick`."""
    tick = np.concatenate([track.pedal_tick for track in tracks])
    is_down = np.concatenate([track.pedal_down for track in tracks])
    order = np.argsort(tick, kind="stable")
    tick, is_down = tick[order], is_down[order]
    changed = np.diff(is_down, prepend=False)
    down, up = tick[changed & is_down], tick[changed & ~is_down]
    return down, up if up.size == down.size else np.append(up, max(last_tick, int(down[-1])))
