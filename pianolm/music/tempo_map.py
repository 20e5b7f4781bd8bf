"""Tempo maps: ticks → seconds, and beat times → tempo events.

Shapes: M tempi, N ticks, B beats.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import symusic
from numpy.typing import NDArray

from pianolm.music.beats import MAX_BEAT_SEC, MIN_BEAT_SEC

DEFAULT_TEMPO_US = 500_000
"""Tempo of a MIDI file without tempo events, 120 BPM, in microseconds per quarter note."""

_MAX_TEMPO_US = 2**24 - 1
_GRID_DIVISIONS = 24
_CLOCK_DIVISIONS = (4, 3)
"""Sixteenths and eighth triplets in a quarter note."""
_CLOCK_TOLERANCE = 1 / 96
_PHASE_DIVISIONS = (1, 2, 3, 4, 5, 6, 8)
_RELATED = 0.2
"""Mean resultant length of phases from which on onsets follow a grid; sixteenths at 90 BPM played with a standard
deviation of 30 ms have 0.5."""
_FEWEST_ONSETS = 100
_ROUNDING_US = 0.5 + 1e-3
_MAX_DRIFT_US = 100.0
_SLACK_US = 1e-3
_REPEATED_AFTER_BEATS = 20_000
"""Events of written files must not lie further apart than the longest delta time, which is 27,962 beats."""


class DefaultTempo(Enum):
    """Whether a file has only the tempo of a clock, and how its notes lie on that grid."""

    NO = "no"
    NOTATED = "notated"
    """At least half of the onsets are on the grid."""
    CLOCK = "clock"
    """Most onsets are off the grid: a performance recorded against the clock."""


@dataclass(frozen=True)
class TempoMap:
    """The tempi of a MIDI file.

    Attributes:
        tick: [M] ticks at which a tempo starts; the first is 0.
        tempo_us: [M] microseconds per quarter note from that tick on.
        ticks_per_quarter: Resolution of the file.
        first_event: Tick of the first tempo event; None if the file has none.
    """

    tick: NDArray[np.int64]
    tempo_us: NDArray[np.int64]
    ticks_per_quarter: int
    first_event: int | None = 0

    @classmethod
    def of_score(cls, score: symusic.core.ScoreTick) -> TempoMap:
        """Reads the tempo events of a score; of several at one tick the last one counts, as in players."""
        table = score.tempos.numpy()
        tick, tempo_us = table["time"].astype(np.int64), table["mspq"].astype(np.int64)
        order = np.argsort(tick, kind="stable")
        tick, tempo_us = tick[order], tempo_us[order]
        is_last = np.append(np.diff(tick) > 0, True)[: tick.size]
        tick, tempo_us = tick[is_last], np.maximum(tempo_us[is_last], 1)
        first_event = int(tick[0]) if tick.size else None
        if first_event != 0:
            tick, tempo_us = np.insert(tick, 0, 0), np.insert(tempo_us, 0, DEFAULT_TEMPO_US)
        return cls(tick, tempo_us, score.ticks_per_quarter, first_event)

    def seconds(self, ticks: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
        """Converts ticks [N] to seconds [N] in double precision. The first tempo also holds before tick 0."""
        per_tick = self.tempo_us / (1e6 * self.ticks_per_quarter)
        if self.tick.size == 1:  # the usual case of recorded performances
            return ticks * per_tick[0]
        start_sec = np.concatenate([[0.0], np.cumsum(np.diff(self.tick) * per_tick[:-1])])
        part = np.maximum(np.searchsorted(self.tick, ticks, side="right") - 1, 0)
        return start_sec[part] + (ticks - self.tick[part]) * per_tick[part]

    def default_tempo(self, onset_tick: NDArray[np.int64]) -> DefaultTempo:
        """Whether the beats of the tempo map may not be those of the music, because only a clock's tempo is known.

        This is so if the file has no tempo event, or none before its first note; if all its tempi are 120 BPM and fewer
        than half of the onsets lie on its grid; or if it has one other tempo that the notes do not follow at all, as
        recorders write (117 BPM on some computer-monitored pianos).

        Args:
            onset_tick: [N] onsets of the notes.
        """
        if not onset_tick.size:
            return DefaultTempo.NO
        is_unstated = self.first_event is None or self.first_event > onset_tick.min()
        if not is_unstated and (self.tempo_us != DEFAULT_TEMPO_US).any():
            is_clock = self.tempo_us.size == 1 and not follows_grid(onset_tick, self.ticks_per_quarter)
            return DefaultTempo.CLOCK if is_clock else DefaultTempo.NO
        if not is_on_grid(onset_tick, self.ticks_per_quarter):
            return DefaultTempo.CLOCK
        return DefaultTempo.NOTATED if is_unstated else DefaultTempo.NO


def is_on_grid(onset_tick: NDArray[np.int64], ticks_per_quarter: int) -> bool:
    """Whether at least half of the onsets [N] lie on 24ths of a quarter note: thirty-seconds and sixteenth triplets."""
    step = ticks_per_quarter / _GRID_DIVISIONS
    off_ticks = np.abs(onset_tick - np.rint(onset_tick / step) * step)
    return bool(2 * (off_ticks <= 0.5).sum() >= onset_tick.size)


def follows_grid(onset_tick: NDArray[np.int64], ticks_per_quarter: int) -> bool:
    """Whether onsets [N] have to do with a grid: played to a metronome, they gather around some division of its beats.

    Measured by the mean resultant length of their phases in a quarter note and its halves to eighths, which is near 0
    for any music against an unrelated clock. Few onsets tell nothing and count as following.
    """
    if onset_tick.size < _FEWEST_ONSETS:
        return True
    phase_N = 2 * np.pi * (onset_tick % ticks_per_quarter) / ticks_per_quarter
    return any(abs(np.exp(1j * parts * phase_N).mean()) >= _RELATED for parts in _PHASE_DIVISIONS)


def share_on_clock(onset_tick: NDArray[np.int64], ticks_per_quarter: int) -> float:
    """Share of the onsets [N] that lie on sixteenths or eighth triplets, to 1/96 quarter note, half of a frame."""
    if not onset_tick.size:
        return 1.0
    nearest = [
        np.abs(onset_tick - np.rint(onset_tick * parts / ticks_per_quarter) * ticks_per_quarter / parts)
        for parts in _CLOCK_DIVISIONS
    ]
    tolerance = max(ticks_per_quarter * _CLOCK_TOLERANCE, 0.5)
    return float((np.minimum(*nearest) <= tolerance).mean())


def tempo_events(beats_sec: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Tempi that reproduce beat times, each of which is one quarter note, to 0.1 ms.

    Rounding errors do not add up, and up to 20,000 beats of equal length share one event. Writing beat times that were
    read from such tempi gives the same tempi again.

    Args:
        beats_sec: [B + 1] strictly increasing beat times.

    Returns:
        Indices of the beats at which the tempo changes, the first one 0, and microseconds per quarter note from there.
    """
    interval_B = np.diff(beats_sec) * 1e6
    # A rounded tempo must not leave the range of 15–480 BPM that its beat does not leave.
    low_B = np.where(interval_B >= MIN_BEAT_SEC * 1e6 - _SLACK_US, round(MIN_BEAT_SEC * 1e6), 1).tolist()
    high_B = np.where(
        interval_B <= MAX_BEAT_SEC * 1e6 + _SLACK_US, round(MAX_BEAT_SEC * 1e6), _MAX_TEMPO_US
    ).tolist()
    ends_us = ((beats_sec[1:] - beats_sec[0]) * 1e6).tolist()
    beats, tempi = [], []
    written_us, tempo = 0, 0
    for beat, (interval_us, end_us) in enumerate(zip(interval_B.tolist(), ends_us, strict=True)):
        is_steady = -_ROUNDING_US <= interval_us - tempo <= _ROUNDING_US
        if not (is_steady and -_MAX_DRIFT_US <= written_us + tempo - end_us <= _MAX_DRIFT_US):
            changed = round(end_us - written_us)
            if not low_B[beat] <= changed <= high_B[beat]:
                changed = min(max(changed, low_B[beat]), high_B[beat])
            if changed != tempo:
                beats.append(beat)
                tempi.append(changed)
            tempo = changed
        elif beat % _REPEATED_AFTER_BEATS == 0:
            beats.append(beat)
            tempi.append(tempo)
        written_us += tempo
    return beats, tempi
