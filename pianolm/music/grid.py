"""`Grid`: the beats and bars that a piece lies on, from annotated beats or from the tempo map of its file.

Shapes: B beats of a grid (it has B + 1 beat times), N notes, D bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.bars import bar_starts
from pianolm.music.beats import BeatAnnotation, Repairs, extend_beats, repair_beats
from pianolm.music.metre import metric_grid
from pianolm.music.notes import Notes
from pianolm.music.tempo_map import DefaultTempo

if TYPE_CHECKING:
    from pianolm.music.midi import MidiContent

MAX_SILENT_BEATS = 64
"""Longest silence before the first note that is kept."""

_LONGEST_BAR = 32
_NO_REPAIRS = Repairs()
_TOLERANCE_SEC = 1e-6


@dataclass(frozen=True)
class Grid:
    """Beats and bars that cover the notes of a piece.

    Attributes:
        beats_sec: [B + 1] strictly increasing beat times.
        downbeats_sec: [D] times of the bars' first beats in seconds; None if unknown.
        repairs: Numbers of changes made to the annotated beats.
        silent_beats_cut: Beats removed from a long silence before the first note.
        counted: Metres whose beat had to be chosen: see `pianolm.music.metre.MetricGrid`.
    """

    beats_sec: NDArray[np.float64]
    downbeats_sec: NDArray[np.float64] | None
    repairs: Repairs = _NO_REPAIRS
    silent_beats_cut: int = 0
    counted: tuple[str, ...] = ()

    def without_silence(self, notes: Notes) -> Grid:
        """Cuts a silence of more than `MAX_SILENT_BEATS` beats before the first note.

        The grid then starts with the bar of the first note, or with its beat if that bar is unknown.
        """
        first_note = int(np.searchsorted(self.beats_sec, notes["onset_sec"].min() + _TOLERANCE_SEC)) - 1
        if first_note <= MAX_SILENT_BEATS:
            return self
        starts = bar_starts(self.beats_sec, self.downbeats_sec)
        starts = starts[(starts <= first_note) & (starts > first_note - _LONGEST_BAR)]
        cut = int(starts[-1]) if starts.size else first_note
        added_before = max(self.repairs.added_before - cut, 0)
        return replace(
            self,
            beats_sec=self.beats_sec[cut:],
            repairs=replace(self.repairs, added_before=added_before),
            silent_beats_cut=cut,
        )


def annotated_grid(annotation: BeatAnnotation, notes: Notes, name: str) -> Grid:
    """Repairs annotated beats and extends them to cover the notes.

    Raises:
        UserError: The beats do not make a grid.
    """
    repaired, repairs = repair_beats(annotation.beats_sec, name)
    beats_sec = extend_beats(repaired, notes["onset_sec"], notes["offset_sec"], name)
    before = int(np.searchsorted(beats_sec, repaired[0]))
    after = beats_sec.size - repaired.size - before
    downbeat = annotation.downbeat
    return Grid(
        beats_sec,
        None if downbeat is None else annotation.beats_sec[downbeat],
        replace(repairs, added_before=before, added_after=after),
    )


def tempo_map_grid(midi: MidiContent, name: str) -> Grid:
    """The beats and bars of a file's own tempo map and time signatures.

    Time signatures are ignored in a performance against a clock, most of whose notes are off its grid. Where
    every bar would have one beat, as in files that say 1/4 throughout, the bars are unknown.

    Args:
        midi: Contents of the file; it has notes.
        name: Name of the file, for error messages.

    Raises:
        UserError: The grid would be longer than `pianolm.music.beats.MAX_BEATS`.
    """
    end_sec = float(midi.tempo.seconds(np.array([midi.end_tick]))[0])
    quarter_sec = end_sec * midi.tempo.ticks_per_quarter / max(midi.end_tick, 1)
    signatures = () if midi.default_tempo is DefaultTempo.CLOCK else midi.signatures
    if midi.mark is not None:
        marked = _marked_grid(midi, quarter_sec, name)
        if marked is not None:
            return marked
    metric = metric_grid(signatures, midi.tempo.ticks_per_quarter, midi.end_tick, quarter_sec, name)
    downbeat, counted = metric.downbeat, metric.counted
    if downbeat is not None and downbeat.all():
        downbeat, counted = None, (*counted, "no bars, as the time signature has one beat")
    annotation = BeatAnnotation(midi.tempo.seconds(metric.beat_tick), downbeat)
    grid = annotated_grid(annotation, midi.notes, name).without_silence(midi.notes)
    return replace(grid, counted=counted)


def _marked_grid(midi: MidiContent, quarter_sec: float, name: str) -> Grid | None:
    """The grid that the marker of a file describes.

    None if the file was edited since: notes lie outside the grid, or its tempi need repairs.
    """
    assert midi.mark is not None, "only files with a marker"
    ticks = midi.tempo.ticks_per_quarter
    beats_sec = midi.tempo.seconds(np.arange(midi.mark.beats + 1) * ticks)
    last_onset, last_end = midi.notes["onset_sec"].max(), midi.notes["offset_sec"].max()
    if last_onset >= beats_sec[-1] or last_end > beats_sec[-1] + _TOLERANCE_SEC:
        return None
    metric = metric_grid(midi.signatures, ticks, midi.mark.beats * ticks, quarter_sec, name)
    implied = metric.beat_tick[metric.downbeat] / ticks if metric.downbeat is not None else np.zeros(0)
    starts = midi.mark.bar_starts(np.rint(implied).astype(np.intp))
    repaired, repairs = repair_beats(beats_sec, name)
    return None if repairs.any else Grid(repaired, beats_sec[starts] if starts.size else None)


def track_beats(midi: MidiContent, name: str) -> BeatAnnotation:
    """One beat per note of the file's beat track.

    Raises:
        UserError: The file has no beat track.
    """
    if midi.track_beats_sec is None:
        raise UserError(
            f"{name}: no track called beats, click or metronome with short, evenly spaced notes of one or two pitches; "
            "give a beat file, or use beats='tempo_map'"
        )
    return BeatAnnotation(midi.track_beats_sec)
