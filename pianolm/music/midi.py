"""Standard MIDI files ↔ notes in seconds, a tempo map and bars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import symusic
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.bars import bar_starts
from pianolm.music.notes import Notes, make_notes

TICKS_PER_BEAT = 480
"""Resolution of written files: ten ticks per frame, so that every frame lies on a tick."""

BEAT_TRACK_NAMES = frozenset({"beat", "beats", "click", "clicks", "metronome"})
_DEFAULT_TEMPO_US = 500_000
_MAX_BEATS_PER_BAR = 32  # a longer distance is a gap in the annotation


@dataclass(frozen=True)
class MidiContent:
    """Contents of a MIDI file.

    Attributes:
        notes: [N] note array of all tracks but drums and beat tracks, sorted by (onset, pitch).
        tempo_tick: [M] ticks at which a tempo starts; the first is 0.
        tempo_us: [M] microseconds per quarter note from that tick on.
        ticks_per_quarter: Resolution of the file in ticks per quarter note.
        end_tick: Tick at which the last note ends.
        track_beats_sec: [B] onsets of the beat track (named "beats", "click" or "metronome"); None if there is none.
    """

    notes: Notes
    tempo_tick: NDArray[np.int64]
    tempo_us: NDArray[np.int64]
    ticks_per_quarter: int
    end_tick: int
    track_beats_sec: NDArray[np.float64] | None

    def seconds(self, ticks: NDArray[np.integer]) -> NDArray[np.float64]:
        """Converts ticks [N] to seconds [N] with the file's tempo map."""
        return ticks_to_seconds(ticks, self.tempo_tick, self.tempo_us, self.ticks_per_quarter)


def ticks_to_seconds(
    ticks: NDArray[np.integer],
    tempo_tick: NDArray[np.int64],
    tempo_us: NDArray[np.int64],
    ticks_per_quarter: int,
) -> NDArray[np.float64]:
    """Converts ticks [N] to seconds [N] with a tempo map, in double precision."""
    per_tick = tempo_us / (1e6 * ticks_per_quarter)
    if tempo_tick.size == 1:  # the usual case of recorded performances
        return ticks * per_tick[0]
    start_sec = np.concatenate([[0.0], np.cumsum(np.diff(tempo_tick) * per_tick[:-1])])
    part = np.searchsorted(tempo_tick, ticks, side="right") - 1
    return start_sec[part] + (ticks - tempo_tick[part]) * per_tick[part]


def read_midi(path: str | Path) -> MidiContent:
    """Reads a MIDI file and merges the notes of all tracks but drums and beat tracks.

    Raises:
        UserError: The file is missing, is not a MIDI file, or has notes out of range.
    """
    score = _read_score(Path(path))
    tempo_tick, tempo_us = _tempo_map(score)
    arrays, beat_ticks = [], None
    for track in score.tracks:
        if track.name.strip().lower() in BEAT_TRACK_NAMES:
            beat_ticks = np.unique(track.notes.numpy()["time"].astype(np.int64))
        elif not track.is_drum and len(track.notes):
            arrays.append(track.notes.numpy())
    columns = {
        key: np.concatenate([a[key] for a in arrays]).astype(np.int64) if arrays else np.zeros(0, np.int64)
        for key in ("time", "duration", "pitch", "velocity")
    }
    end = columns["time"] + columns["duration"]
    to_sec = (tempo_tick, tempo_us, score.ticks_per_quarter)
    notes = make_notes(
        ticks_to_seconds(columns["time"], *to_sec),
        ticks_to_seconds(end, *to_sec),
        columns["pitch"],
        columns["velocity"],
        name=str(path),
    )
    return MidiContent(
        notes=notes,
        tempo_tick=tempo_tick,
        tempo_us=tempo_us,
        ticks_per_quarter=score.ticks_per_quarter,
        end_tick=int(end.max(initial=0)),
        track_beats_sec=None if beat_ticks is None else ticks_to_seconds(beat_ticks, *to_sec),
    )


def write_midi(
    path: str | Path,
    notes: Notes,
    beats_sec: NDArray[np.float64],
    downbeats_sec: NDArray[np.float64] | None = None,
) -> None:
    """Writes notes on their beat grid: a quarter note per beat, and a tempo event at every change of tempo.

    A sequencer therefore shows the grid, and reading the file with `beats="tempo_map"` restores it and, for notes that
    lie on frames, their frames. The file is written under a temporary name and renamed, so that a crash leaves no
    incomplete file.

    Args:
        path: File to write.
        notes: [N] note array; every note lies inside the grid.
        beats_sec: [B + 1] strictly increasing beat times; the first one becomes tick 0.
        downbeats_sec: [D] downbeats in seconds, written as time signatures in quarter notes; None if unknown, and
            then no time signature is written.
    """
    path = Path(path)
    score = build_score(notes, beats_sec, downbeats_sec)
    partial = path.with_name(f".{path.name}.partial")
    score.dump_midi(str(partial))
    partial.replace(path)


def build_score(
    notes: Notes, beats_sec: NDArray[np.float64], downbeats_sec: NDArray[np.float64] | None = None
) -> symusic.Score:
    """Builds the symusic score that `write_midi` writes."""
    assert beats_sec.size >= 2, "a beat grid has at least one beat"
    tempo_us = np.clip(np.rint(np.diff(beats_sec) * 1e6), 1, 2**24 - 1).astype(np.int64)
    change = np.flatnonzero(np.diff(tempo_us, prepend=-1))
    beat_tick = np.arange(beats_sec.size) * TICKS_PER_BEAT
    onset = np.rint(np.interp(notes["onset_sec"], beats_sec, beat_tick)).astype(np.int32)
    end = np.rint(np.interp(notes["offset_sec"], beats_sec, beat_tick)).astype(np.int32)
    score = symusic.Score(TICKS_PER_BEAT)
    score.tempos = symusic.Tempo.from_numpy(
        time=(change * TICKS_PER_BEAT).astype(np.int32), mspq=tempo_us[change].astype(np.int32)
    )
    for beat, numerator in _time_signatures(bar_starts(beats_sec, downbeats_sec)):
        score.time_signatures.append(symusic.TimeSignature(beat * TICKS_PER_BEAT, numerator, 4))
    track = symusic.Track(name="piano", program=0, is_drum=False)
    track.notes = symusic.Note.from_numpy(
        time=onset,
        duration=np.maximum(end - onset, 1).astype(np.int32),
        pitch=notes["pitch"].astype(np.int8),
        velocity=notes["velocity"].astype(np.int8),
    )
    score.tracks.append(track)
    return score


def _time_signatures(starts: NDArray[np.intp]) -> list[tuple[int, int]]:
    """(beat, beats per bar) at every change of metre; beats before the first bar are an upbeat and complete bars."""
    lengths = np.diff(starts).tolist()
    if not lengths or max(lengths) > _MAX_BEATS_PER_BAR:
        return []
    changes = [(int(starts[0]) % lengths[0], lengths[0])]
    if changes[0][0]:
        changes.insert(0, (0, changes[0][0]))
    for start, length in zip(starts.tolist(), lengths, strict=False):
        if length != changes[-1][1]:
            changes.append((start, length))
    return changes


def _read_score(path: Path) -> symusic.Score:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the path of a MIDI file")
    try:
        return symusic.Score.from_midi(path.read_bytes())
    except (RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: not a readable MIDI file ({reason}); expected a Standard MIDI File"
        ) from error


def _tempo_map(score: symusic.Score) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ticks and µs per quarter of a tempo map that starts at tick 0; of several tempi at one tick the last counts."""
    table = score.tempos.numpy()
    ticks, us = table["time"].astype(np.int64), table["mspq"].astype(np.int64)
    order = np.argsort(ticks, kind="stable")
    ticks, us = ticks[order], us[order]
    keep = np.append(np.diff(ticks) > 0, True)[: ticks.size]
    ticks, us = ticks[keep], np.maximum(us[keep], 1)
    if ticks.size == 0 or ticks[0] > 0:
        ticks, us = np.insert(ticks, 0, 0), np.insert(us, 0, _DEFAULT_TEMPO_US)
    return ticks, us
