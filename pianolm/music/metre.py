"""Metre: time signatures of a MIDI file ↔ beats and bars.

Shapes: B beats of a grid, D bars, S time signatures. Units: ticks of the file, and quarter notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from pianolm.music.beats import check_grid_length

MAX_NUMERATOR = 255
"""Largest numerator that a MIDI file can hold."""

_LARGEST_DENOMINATOR = 64
_MIN_BEAT_BPM, _MAX_BEAT_BPM = 30, 240
_TOLERANCE = 1e-6
_UNIT_NAMES = {
    4: "whole notes",
    2: "half notes",
    1: "quarters",
    0.5: "eighths",
    0.25: "sixteenths",
    1.5: "dotted quarters",
    0.75: "dotted eighths",
}


@dataclass(frozen=True)
class TimeSignature:
    """A time signature and the tick from which on it holds."""

    tick: int
    numerator: int
    denominator: int

    @property
    def bar_quarters(self) -> float:
        """Length of a bar in quarter notes."""
        return 4 * self.numerator / self.denominator

    @property
    def is_compound(self) -> bool:
        """Whether three eighths, or shorter notes, may be one beat."""
        return self.denominator >= 8 and self.numerator % 3 == 0

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"


@dataclass(frozen=True)
class MetricGrid:
    """Beats that follow from time signatures.

    Attributes:
        beat_tick: [B + 1] ascending ticks of the beats, not always whole numbers. The first one is negative if an
            upbeat is not a whole number of beats.
        downbeat: [B + 1] whether each beat is a downbeat; None without time signatures.
        counted: Beats of compound metres and others that are not the denominator, such as "6/8 in dotted quarters".
    """

    beat_tick: NDArray[np.float64]
    downbeat: NDArray[np.bool_] | None
    counted: tuple[str, ...] = ()


def valid_signatures(rows: Iterable[tuple[int, int, int]]) -> list[TimeSignature]:
    """Sorts (tick, numerator, denominator) rows. Of several at one tick the last counts; damaged ones are dropped."""
    by_tick = {
        tick: TimeSignature(tick, numerator, denominator)
        for tick, numerator, denominator in rows
        if 1 <= numerator <= MAX_NUMERATOR and 1 <= denominator <= _LARGEST_DENOMINATOR
    }
    return [by_tick[tick] for tick in sorted(by_tick)]


def beat_quarters(signature: TimeSignature, quarter_sec: float) -> float:
    """Length of the beat of a metre in quarter notes.

    It is the denominator: the half note in /2, the quarter in /4, the eighth in /8. In 6/8, 9/8 and 12/8 (and likewise
    in /16) it is the dotted note of three of them, unless that would be slower than 30 BPM; in 3/8 only if the eighth
    would be faster than 240 BPM. Other beats faster than 240 BPM are doubled up to a quarter, and beats slower than
    30 BPM halved down to a quarter.

    Args:
        signature: The metre.
        quarter_sec: Mean length of a quarter note of the piece in seconds.
    """
    quarters = 4 / signature.denominator
    if signature.is_compound:
        is_slow = _bpm(3 * quarters, quarter_sec) < _MIN_BEAT_BPM
        is_fast = _bpm(quarters, quarter_sec) > _MAX_BEAT_BPM + _TOLERANCE
        if is_fast if signature.numerator == 3 else not is_slow:
            return 3 * quarters
    while quarters > 1 and _bpm(quarters, quarter_sec) < _MIN_BEAT_BPM:
        quarters /= 2
    while quarters < 1 and _bpm(quarters, quarter_sec) > _MAX_BEAT_BPM + _TOLERANCE:
        quarters *= 2
    return quarters


def _bpm(quarters: float, quarter_sec: float) -> float:
    return 60 / max(quarters * quarter_sec, 1e-9)


def metric_grid(
    signatures: Sequence[TimeSignature], ticks_per_quarter: int, end_tick: int, quarter_sec: float, name: str
) -> MetricGrid:
    """Beats and downbeats from tick 0 to at least `end_tick`.

    A time signature starts a bar at its tick. A first bar that is shorter than the next one is an upbeat: its beats are
    counted back from the first downbeat. Beats that do not divide a bar leave a longer last beat. Without time
    signatures every quarter note is a beat.

    Args:
        signatures: Time signatures as `valid_signatures` returns them.
        ticks_per_quarter: Resolution of the file.
        end_tick: Tick at which the last note ends.
        quarter_sec: Mean length of a quarter note in seconds.
        name: Name of the file, for error messages.

    Raises:
        UserError: The grid would be longer than `pianolm.music.beats.MAX_BEATS`.
    """
    if not signatures:
        count = max(-(-end_tick // ticks_per_quarter), 1)
        check_grid_length(count, name)
        return MetricGrid(np.arange(count + 1.0) * ticks_per_quarter, None)
    signatures = [s for s in signatures if s.tick < max(end_tick, 1)] or list(signatures[:1])
    unit_ticks = [beat_quarters(s, quarter_sec) * ticks_per_quarter for s in signatures]
    start = _upbeat_end(signatures, ticks_per_quarter)
    first = 0 if signatures[0].tick == start else 1
    parts = [_beats_before(start, unit_ticks[first], name)]
    total = 0
    for index in range(first, len(signatures)):
        is_last = index + 1 == len(signatures)
        end = max(end_tick, signatures[index].tick + 1) if is_last else signatures[index + 1].tick
        parts.append(_segment(signatures[index], unit_ticks[index], ticks_per_quarter, end, is_last, name))
        total += parts[-1][0].size
        check_grid_length(total, name)
    beat_tick, downbeat = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return MetricGrid(beat_tick, downbeat, _counted(signatures, unit_ticks, ticks_per_quarter))


def _upbeat_end(signatures: Sequence[TimeSignature], ticks_per_quarter: int) -> int:
    """Tick of the first downbeat: the second time signature if the first one is of a single, shorter bar."""
    if len(signatures) > 1:
        first, second = signatures[:2]
        length = (second.tick - first.tick) / ticks_per_quarter
        if first.tick == 0 and length <= first.bar_quarters + _TOLERANCE and length < second.bar_quarters:
            return second.tick
    return signatures[0].tick


def _beats_before(tick: int, unit_ticks: float, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Beats from tick 0 or earlier up to a downbeat, without that downbeat."""
    count = ceil(tick / unit_ticks - _TOLERANCE)
    check_grid_length(count, name)
    return tick - unit_ticks * np.arange(count, 0, -1.0), np.zeros(count, bool)


def _segment(
    signature: TimeSignature, unit_ticks: float, ticks_per_quarter: int, end: int, is_last: bool, name: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Beats of the bars from a time signature to tick `end`. The last segment includes the first beat from there on."""
    bar_ticks = signature.bar_quarters * ticks_per_quarter
    beats_per_bar = max(floor(bar_ticks / unit_ticks + _TOLERANCE), 1)
    bars = ceil((end - signature.tick) / bar_ticks - _TOLERANCE)
    check_grid_length(bars * beats_per_bar, name)
    bar, position = np.divmod(np.arange(bars * beats_per_bar + 1), beats_per_bar)
    beat_tick = signature.tick + bar * bar_ticks + position * unit_ticks
    downbeat = position == 0
    if is_last:
        count = int(np.searchsorted(beat_tick, end - _TOLERANCE)) + 1
        return beat_tick[:count], downbeat[:count]
    # A beat must last at least its unit, except the first one of a truncated bar.
    kept = downbeat & (beat_tick < end - _TOLERANCE) | (beat_tick + unit_ticks <= end + _TOLERANCE)
    return beat_tick[kept], downbeat[kept]


def _counted(
    signatures: Sequence[TimeSignature], unit_ticks: Sequence[float], ticks_per_quarter: int
) -> tuple[str, ...]:
    counted = {}
    for signature, ticks in zip(signatures, unit_ticks, strict=True):
        quarters = ticks / ticks_per_quarter
        if quarters != 4 / signature.denominator or signature.is_compound:
            counted[str(signature)] = f"{signature} in {_UNIT_NAMES.get(quarters, f'{quarters:g} quarters')}"
    return tuple(counted.values())


def bar_signatures(starts_D: NDArray[np.intp], ticks_per_beat: int) -> list[TimeSignature]:
    """Time signatures in quarters for the bars of a grid that is written with a quarter note per beat.

    Beats before the first bar are written as a shorter bar (the upbeat) and complete bars.

    Args:
        starts_D: [D] ascending indices of the beats at which bars start.
        ticks_per_beat: Resolution of the file to write.

    Returns:
        Time signatures at every change of the bar length; empty if no bar length is known.
    """
    lengths = np.minimum(np.diff(starts_D), MAX_NUMERATOR).tolist()
    if not lengths:
        return []
    changes = [(int(starts_D[0]) % lengths[0], lengths[0])]
    if changes[0][0]:
        changes.insert(0, (0, changes[0][0]))
    for start, length in zip(starts_D.tolist(), lengths, strict=False):
        if length != changes[-1][1]:
            changes.append((start, length))
    return [TimeSignature(beat * ticks_per_beat, length, 4) for beat, length in changes]
