"""Standard MIDI files ↔ notes, tempo map and time signatures.

Shapes: N notes, B beats of a grid, D bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import symusic
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.bars import bar_starts
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FrameNotes, resolve_notes, seconds_to_frames
from pianolm.music.grid import tempo_map_grid
from pianolm.music.grid_mark import GridMark
from pianolm.music.metre import TimeSignature, bar_signatures, metric_grid, valid_signatures
from pianolm.music.midi_bytes import (
    end_all_notes,
    found_tracks,
    is_cut_short,
    read_midi_bytes,
    write_midi_bytes,
)
from pianolm.music.notes import NOTE_DTYPE, Notes, make_notes
from pianolm.music.pedal import PEDAL_CHOICES, extend_by_pedal
from pianolm.music.remarks import Remarks
from pianolm.music.tempo_map import DefaultTempo, TempoMap, share_on_clock, tempo_events
from pianolm.music.tracks import Programs, Track, TrackRoles, assign_roles, check_programs, read_track

TICKS_PER_FRAME = 200
TICKS_PER_BEAT = FRAMES * TICKS_PER_FRAME
"""Resolution of written files. A tick is at most 0.42 ms, at 15 BPM."""

_FRAME_REACH = (TICKS_PER_FRAME - 1) // 2
"""Largest distance in ticks from a frame at which a time still rounds to it."""

_TOLERANCE_SEC = 1e-6
_NO_REMARKS = Remarks()


@dataclass(frozen=True)
class MidiContent:
    """Contents of a MIDI file.

    Attributes:
        notes: [N] note array of the tracks with the programs asked for, sorted by (onset, pitch).
        tempo: The tempo map.
        end_tick: Tick at which the last note ends.
        signatures: The time signatures in order of time.
        default_tempo: Whether only the tempo of a clock is known: see `TempoMap.default_tempo`.
        on_clock: Share of the onsets on sixteenths or triplets of the tempo map: see
            `pianolm.music.tempo_map.share_on_clock`.
        track_beats_sec: [B] onsets of the beat track (see `pianolm.music.tracks`); None if there is none.
        mark: The marker by which pianolm describes the grid of a file; None if there is no such marker.
        remarks: What was left out or changed.
    """

    notes: Notes
    tempo: TempoMap
    end_tick: int
    signatures: tuple[TimeSignature, ...]
    default_tempo: DefaultTempo
    on_clock: float = 1.0
    track_beats_sec: NDArray[np.float64] | None = None
    mark: GridMark | None = None
    remarks: Remarks = _NO_REMARKS


def read_midi(path: str | Path, programs: Programs = "piano", pedal: str = "ignore") -> MidiContent:
    """Reads a MIDI file and merges the notes of its piano tracks.

    Drum tracks and beat tracks are never music. See `pianolm.music.tracks` for how they are recognised.

    Args:
        path: MIDI file.
        programs: Programs to read: "piano" (0–7), "all", a program, or several.
        pedal: "ignore" the sustain pedal, or "extend" notes while it is down.

    Raises:
        UserError: The file is missing, is not a MIDI file with ticks per quarter note, has notes out of range, or has
            notes, but none of the programs asked for; or an argument has none of these values.
    """
    path = Path(path)
    wanted = check_programs(programs)
    if pedal not in PEDAL_CHOICES:
        raise UserError(f"pedal={pedal}: expected one of {', '.join(PEDAL_CHOICES)}")
    content, missing_tracks = found_tracks(path, read_midi_bytes(path))
    score, tracks = _read_tracks(content, path, with_pedal=pedal == "extend")
    roles = assign_roles(tracks, wanted, score.ticks_per_quarter)
    if roles.others and not roles.music:
        raise UserError(_no_program_found(path, roles.others, programs))
    music, pedalled = roles.music, 0
    if pedal == "extend":
        music, pedalled = extend_by_pedal(roles.music, tracks)
    tempo = TempoMap.of_score(score)
    onset, end, pitch, velocity = (_joined(music, field) for field in ("onset", "end", "pitch", "velocity"))
    return MidiContent(
        notes=make_notes(tempo.seconds(onset), tempo.seconds(end), pitch, velocity, name=str(path)),
        tempo=tempo,
        end_tick=int(end.max(initial=0)),
        signatures=tuple(
            valid_signatures((s.time, s.numerator, s.denominator) for s in score.time_signatures)
        ),
        default_tempo=tempo.default_tempo(onset),
        on_clock=share_on_clock(onset, score.ticks_per_quarter),
        track_beats_sec=tempo.seconds(np.unique(roles.beats[0].onset)) if roles.beats else None,
        mark=GridMark.find(marker.text for marker in score.markers),
        remarks=replace(
            _remarks(roles, pedalled), missing_tracks=missing_tracks, cut_tracks=sum(is_cut_short(content))
        ),
    )


def _read_tracks(content: bytes, path: Path, with_pedal: bool) -> tuple[symusic.core.ScoreTick, list[Track]]:
    """Reads the tracks of a file, in which every note has an end."""
    for exact in (False, True):  # the second time for several notes of one pitch without an end
        score = _parse(end_all_notes(content, exact, keep_controls=with_pedal), path)
        tracks = [read_track(track, with_pedal) for track in score.tracks]
        if not any(track.unended for track in tracks):
            break
    return score, tracks


def _parse(content: bytes, path: Path) -> symusic.core.ScoreTick:
    try:
        return symusic.Score.from_midi(content)
    except (RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: not a readable MIDI file ({reason}); expected a Standard MIDI File"
        ) from error


def _joined(tracks: list[Track], field: str) -> NDArray[np.int64]:
    """[N] one field of the notes of several tracks."""
    if len(tracks) == 1:
        return getattr(tracks[0], field)
    return np.concatenate([getattr(track, field) for track in tracks]) if tracks else np.zeros(0, np.int64)


def _no_program_found(path: Path, others: list[Track], programs: Programs) -> str:
    counts: dict[int, int] = {}
    for track in others:
        counts[track.program] = counts.get(track.program, 0) + track.size
    present = ", ".join(f"{program} ({count} notes)" for program, count in sorted(counts.items()))
    wanted = "piano (0–7)" if programs == "piano" else str(programs)
    return (
        f"{path}: no piano found: its notes have the programs {present}, expected programs={wanted}; "
        "choose others with data.programs=all or a list of programs"
    )


def _remarks(roles: TrackRoles, pedalled: int) -> Remarks:
    return Remarks(
        beat_track=roles.beats[0].name if roles.beats else None,
        beat_track_notes=sum(track.size for track in roles.beats),
        drum_notes=sum(track.size for track in roles.drums),
        drum_tracks=tuple(track.name for track in roles.drums if not track.is_drum),
        other_notes=sum(track.size for track in roles.others),
        other_programs=tuple(sorted({track.program for track in roles.others})),
        unended_notes=sum(track.unended for track in roles.music),
        pedalled_notes=pedalled,
    )


def write_midi(
    path: str | Path,
    notes: Notes,
    beats_sec: NDArray[np.float64],
    downbeats_sec: NDArray[np.float64] | None = None,
    frame_notes: FrameNotes | None = None,
) -> None:
    """Writes notes on their beat grid: a quarter note per beat, and a tempo event at every change of tempo.

    Notes are written as their piano roll holds them: merged if they start in one frame, and cut where their pitch is
    struck again (see `pianolm.music.cells`). Reading the file with `beats="tempo_map"` restores these notes in the same
    frames and within 1 ms, the beats and the bars, relative to the first beat. The file is written under a temporary
    name and renamed, so that a crash leaves no incomplete file.

    Args:
        path: File to write.
        notes: [N] note array; every note lies inside the grid.
        beats_sec: [B + 1] strictly increasing beat times; the first one becomes tick 0.
        downbeats_sec: [D] downbeats in seconds, written as time signatures in quarter notes; None if unknown, and
            then no time signature is written.
        frame_notes: [N] the notes in frames, sorted by (pitch, onset), if all of them begin and end on frames and no
            two of one pitch overlap. They need not be resolved then, which takes half of the time.
    """
    write_midi_bytes(path, build_score(notes, beats_sec, downbeats_sec, frame_notes).dumps_midi())


def build_score(
    notes: Notes,
    beats_sec: NDArray[np.float64],
    downbeats_sec: NDArray[np.float64] | None = None,
    frame_notes: FrameNotes | None = None,
) -> symusic.core.ScoreTick:
    """Builds the symusic score that `write_midi` writes."""
    assert beats_sec.size >= 2, "a beat grid has at least one beat"
    if frame_notes is None:
        ticks = _note_ticks(notes, beats_sec)
    else:
        onset_tick, end_tick = (frame_notes[name] * TICKS_PER_FRAME for name in ("onset", "end"))
        ticks = NoteTicks(onset_tick, end_tick, frame_notes["pitch"], frame_notes["velocity"])
    content = _content_to_write(ticks, beats_sec, downbeats_sec)
    score = symusic.Score(TICKS_PER_BEAT)
    score.tempos = symusic.Tempo.from_numpy(
        time=content.tempo.tick.astype(np.int32), mspq=content.tempo.tempo_us.astype(np.int32)
    )
    for signature in content.signatures:
        score.time_signatures.append(
            symusic.TimeSignature(signature.tick, signature.numerator, signature.denominator)
        )
    if content.mark is not None:
        score.markers.append(symusic.TextMeta(0, str(content.mark)))
    track = symusic.Track(name="piano", program=0, is_drum=False)
    track.notes = symusic.Note.from_numpy(
        time=ticks.onset.astype(np.int32),
        duration=(ticks.end - ticks.onset).astype(np.int32),
        pitch=ticks.pitch.astype(np.int8),
        velocity=ticks.velocity.astype(np.int8),
    )
    score.tracks.append(track)
    return score


def _content_to_write(
    ticks: NoteTicks, beats_sec: NDArray[np.float64], downbeats_sec: NDArray[np.float64] | None
) -> MidiContent:
    """The contents of a file as it will be read. Of its notes, those that its grid depends on are enough."""
    change, tempo_us = tempo_events(beats_sec)
    tempo = TempoMap(np.array(change) * TICKS_PER_BEAT, np.array(tempo_us), TICKS_PER_BEAT)
    starts = bar_starts(beats_sec, downbeats_sec)
    size = ticks.onset.size
    outer = [int(ticks.onset.argmin()), int(ticks.onset.argmax()), int(ticks.end.argmax())] if size else []
    read_notes = np.empty(len(outer), NOTE_DTYPE)
    read_notes["onset_sec"] = tempo.seconds(ticks.onset[outer])
    read_notes["offset_sec"] = tempo.seconds(ticks.end[outer])
    read_notes["pitch"], read_notes["velocity"] = ticks.pitch[outer], ticks.velocity[outer]
    content = MidiContent(
        notes=read_notes,
        tempo=tempo,
        end_tick=int(ticks.end.max(initial=0)),
        signatures=tuple(bar_signatures(starts, TICKS_PER_BEAT)),
        default_tempo=tempo.default_tempo(ticks.onset),
    )
    mark = _grid_mark(content, beats_sec.size - 1, starts)
    return replace(content, mark=mark)


class NoteTicks(NamedTuple):
    """Notes to write, each field [N], sorted by (pitch, onset). Times are in ticks."""

    onset: NDArray[np.int64]
    end: NDArray[np.int64]
    pitch: NDArray[np.uint8]
    velocity: NDArray[np.uint8]


def _note_ticks(notes: Notes, beats_sec: NDArray[np.float64]) -> NoteTicks:
    """The resolved notes, sorted by (pitch, onset), with onsets and ends in ticks that round to the same frames."""
    resolved, frames = resolve_notes(notes, beats_sec)
    beat_tick = np.arange(beats_sec.size) * TICKS_PER_BEAT

    def to_ticks(times_sec: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.rint(np.interp(times_sec, beats_sec, beat_tick)).astype(np.int64)

    def near_frame(ticks: NDArray[np.int64], frame: NDArray[np.int64]) -> NDArray[np.int64]:
        center = frame * TICKS_PER_FRAME
        return np.clip(ticks, np.maximum(center - _FRAME_REACH, 0), center + _FRAME_REACH)

    onset = near_frame(to_ticks(resolved["onset_sec"]), frames["onset"])
    # A note shorter than half a frame keeps its true end: a reader extends it to one frame again.
    end_frame = np.minimum(seconds_to_frames(resolved["offset_sec"], beats_sec), frames["end"])
    end = near_frame(to_ticks(resolved["offset_sec"]), end_frame)
    same_pitch = np.flatnonzero(resolved["pitch"][1:] == resolved["pitch"][:-1])
    end[same_pitch] = np.minimum(end[same_pitch], onset[same_pitch + 1])
    end = np.maximum(end, onset + 1)
    end += (
        end % TICKS_PER_FRAME == TICKS_PER_FRAME // 2
    )  # midway between two frames it would round either way
    return NoteTicks(onset, np.minimum(end, beat_tick[-1]), resolved["pitch"], resolved["velocity"])


def _grid_mark(content: MidiContent, n_beats: int, starts: NDArray[np.intp]) -> GridMark | None:
    """The marker that a reader needs to restore the grid; None if tempi and time signatures are enough."""
    ticks = content.tempo.ticks_per_quarter
    beats_sec = content.tempo.seconds(np.arange(n_beats + 1) * ticks)
    if content.notes.size and content.default_tempo is DefaultTempo.NO:
        grid = tempo_map_grid(content, "written file")
        is_restored = grid.beats_sec.size == beats_sec.size and np.allclose(
            grid.beats_sec, beats_sec, rtol=0, atol=_TOLERANCE_SEC
        )
        if is_restored and np.array_equal(bar_starts(grid.beats_sec, grid.downbeats_sec), starts):
            return None
    metric = metric_grid(content.signatures, ticks, n_beats * ticks, 1.0, "written file")
    implied = np.flatnonzero(metric.downbeat) if metric.downbeat is not None else np.zeros(0, np.intp)
    return GridMark.of_bars(n_beats, starts, implied)
