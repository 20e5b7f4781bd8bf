"""`Piece`: the notes of a piano piece and its beat grid, read from MIDI files and written to them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm import models
from pianolm.errors import UserError
from pianolm.music import bars
from pianolm.music import beats as beat_grids
from pianolm.music.beat_estimation import estimate_beats, load_tracker
from pianolm.music.beats import FRAMES, BeatAnnotation, Repairs
from pianolm.music.cells import (
    Cells,
    Collisions,
    FrameNotes,
    cells_to_frames,
    frames_to_cells,
    frames_to_notes,
    notes_to_frames,
    seconds_to_frames,
)
from pianolm.music.grid import Grid, annotated_grid, tempo_map_grid, track_beats
from pianolm.music.midi import MidiContent, read_midi, write_midi
from pianolm.music.midi_velocity import write_velocities
from pianolm.music.notes import Notes, is_flat
from pianolm.music.remarks import Remarks
from pianolm.music.tempo_map import DefaultTempo
from pianolm.music.tracks import Programs

if TYPE_CHECKING:
    import pretty_midi

_NO_REPAIRS = Repairs()
_NO_REMARKS = Remarks()
_ON_FRAMES = "_on_frames"
"""Name in the `__dict__` of pieces whose notes all begin and end on frames and do not overlap."""

DEFAULT_TEMPO_CHOICES = ("estimate", "use", "reject")
BEAT_CHOICES = ("auto", "file", "tempo_map", "track", "estimate")
CLOCK_SHARE = 0.9
"""Share of the onsets on sixteenths or triplets from which on `default_tempo=estimate` keeps the clock."""


@dataclass(frozen=True, eq=False)
class Piece:
    """The notes of a piano piece and its beat grid.

    Attributes:
        notes: [N] note array (`pianolm.music.notes.NOTE_DTYPE`): onset_sec, offset_sec, pitch, velocity, sorted by
            (onset, pitch).
        beats_sec: [B + 1] strictly increasing beat times in seconds; the tempo of every beat is within 15–480 BPM, and
            the grid covers all notes. Beat b lasts from `beats_sec[b]` to `beats_sec[b + 1]`.
        flat: Whether the velocities carry no dynamics (one constant, or a score). They are then excluded from losses.
        downbeats_sec: [D] times of the bars' first beats in seconds; None if unknown.
        repairs: Numbers of changes made to the annotated beats.
        remarks: Decisions made while the file was read, and what was left out.
        skipped: Number of ill-formed tokens that `PianoTokenizer.decode` left out, plus the number of missing ones.
    """

    notes: Notes
    beats_sec: NDArray[np.float64]
    flat: bool
    downbeats_sec: NDArray[np.float64] | None = None
    repairs: Repairs = _NO_REPAIRS
    skipped: int = 0
    remarks: Remarks = _NO_REMARKS

    def __repr__(self) -> str:
        bars = np.diff(self.bar_starts)
        metre = f"bars of {np.bincount(bars).argmax()} beats" if bars.size else "no bars known"
        seconds = self.beats_sec[-1] - self.beats_sec[0]
        return f"Piece({self.notes.size} notes, {self.n_beats} beats, {metre}, {seconds:.1f} s)"

    @property
    def beats(self) -> NDArray[np.float64]:
        """[B + 1] beat times in seconds."""
        return self.beats_sec

    @property
    def n_beats(self) -> int:
        """Number of beats of the grid, including beats without notes."""
        return self.beats_sec.size - 1

    @cached_property
    def _framed(self) -> tuple[FrameNotes, Collisions]:
        return notes_to_frames(self.notes, self.beats_sec)

    @property
    def frame_notes(self) -> FrameNotes:
        """[N'] notes in frames of 1/48 beat (`pianolm.music.cells.FRAME_NOTE_DTYPE`), sorted by (pitch, onset)."""
        return self._framed[0]

    @property
    def collisions(self) -> Collisions:
        """Numbers of notes that were merged or cut when they were quantized to frames."""
        return self._framed[1]

    @cached_property
    def cells(self) -> Cells:
        """The active (beat, pitch) cells: see `pianolm.music.cells.Cells`."""
        return frames_to_cells(self.frame_notes, self.n_beats)

    @cached_property
    def bar_starts(self) -> NDArray[np.intp]:
        """[D'] indices of the beats at which a bar starts: see `pianolm.music.bars.bar_starts`."""
        return bars.bar_starts(self.beats_sec, self.downbeats_sec)

    @classmethod
    def from_midi(
        cls,
        path: str | Path,
        beats: str | Path | ArrayLike = "auto",
        flat: bool | None = None,
        *,
        programs: Programs = "piano",
        pedal: str = "ignore",
        default_tempo: str = "estimate",
        tracker: str | Path = models.BEATS,
    ) -> Piece:
        """Reads a MIDI file and its beats. What was decided and left out stands in `remarks`.

        Args:
            path: MIDI file.
            beats: A beat annotation file, an array of beat times in seconds, `"tempo_map"` (the beats and bars of the
                file's tempo map and time signatures), `"track"` (its beat track), `"file"` (the beat file beside it),
                `"estimate"` (beats and bars found from the notes), or `"auto"` (the first that exists: beat file, beat
                track, tempo map; where the last knows only a clock, `default_tempo` decides).
            flat: Whether the velocities carry no dynamics; None decides from the notes.
            programs: General MIDI programs to read: `"piano"` (0–7), `"all"`, a program, or several.
            pedal: `"ignore"` the sustain pedal, or `"extend"` notes to its release or the next note of their pitch.
            default_tempo: What `beats="auto"` does with a tempo map that holds only the default tempo of 120 BPM, or
                one that the notes do not follow: `"estimate"` the beats from the notes unless 90 % of the onsets lie
                on its sixteenths or triplets, `"use"` it, or `"reject"` the file, as `beats="tempo_map"` then does.
            tracker: Beat tracker that estimates: what stage beats published, or `"beats"`, the bundled one.

        Raises:
            UserError: The MIDI file or its beats cannot be read, the beats do not fit the notes, the file has no notes
                of these programs, or an argument has another value.
        """
        midi = read_midi(path, programs, pedal)
        _check_has_notes(midi, path)
        grid, remarks = _read_grid(Path(path), midi, beats, default_tempo, tracker)
        return cls(
            notes=midi.notes,
            beats_sec=grid.beats_sec,
            flat=is_flat(midi.notes) if flat is None else flat,
            downbeats_sec=grid.downbeats_sec,
            repairs=grid.repairs,
            remarks=remarks,
        )

    @classmethod
    def from_notes(
        cls, notes: Notes, beats: BeatAnnotation | ArrayLike, flat: bool | None = None, name: str = "beats"
    ) -> Piece:
        """Makes a piece of notes [N] and a beat grid, which is repaired and extended to cover them.

        Raises:
            UserError: The beats do not make a grid.
        """
        annotation = (
            beats if isinstance(beats, BeatAnnotation) else BeatAnnotation(np.asarray(beats, np.float64))
        )
        grid = annotated_grid(annotation, notes, name)
        return cls(
            notes=notes,
            beats_sec=grid.beats_sec,
            flat=is_flat(notes) if flat is None else flat,
            downbeats_sec=grid.downbeats_sec,
            repairs=grid.repairs,
        )

    @classmethod
    def from_cells(
        cls,
        cells: Cells,
        beats_sec: NDArray[np.float64],
        flat: bool = False,
        skipped: int = 0,
        bar_starts: NDArray[np.intp] | None = None,
    ) -> Piece:
        """Makes a piece of cells and their beat grid [B + 1]; `bar_starts` [D] are indices into the grid."""
        assert beats_sec.size == cells.n_beats + 1, "a grid of B beats has B + 1 beat times"
        frame_notes = cells_to_frames(cells)
        notes = frames_to_notes(frame_notes, beats_sec)
        downbeats_sec = None if bar_starts is None or not bar_starts.size else beats_sec[bar_starts]
        piece = cls(notes, beats_sec, flat, downbeats_sec, skipped=skipped)
        # What the notes of such a piece would be quantized to is known; a changed copy of the piece does without.
        vars(piece).update({"_framed": (frame_notes, Collisions()), _ON_FRAMES: True})
        return piece

    def on_beats(self, beats_sec: NDArray[np.float64]) -> Piece:
        """The same cells and bars on other beat times [B + 1]."""
        return Piece.from_cells(self.cells, beats_sec, self.flat, self.skipped, self.bar_starts)

    def from_beat(self, first: int, n_beats: int | None = None) -> Piece:
        """The part of the piece from beat `first` on, which moves to 0 s. A note tied over that beat starts there.

        Args:
            first: Index of the beat.
            n_beats: Length of the part; all that follows if that is shorter, or for None.
        """
        stop = self.n_beats if n_beats is None else min(first + n_beats, self.n_beats)
        kept = (self.cells.beat >= first) & (self.cells.beat < stop)
        cells = Cells(
            beat=self.cells.beat[kept] - np.int32(first),
            pitch=self.cells.pitch[kept],
            sustain=self.cells.sustain[kept],
            onset=self.cells.onset[kept],
            segment_velocity=self.cells.segment_velocity[np.repeat(kept, self.cells.segment_count)],
            n_beats=stop - first,
        )
        beats_sec = self.beats_sec[first : stop + 1] - self.beats_sec[first]
        bar_starts = self.bar_starts[(self.bar_starts >= first) & (self.bar_starts <= stop)] - first
        return Piece.from_cells(cells, beats_sec, self.flat, self.skipped, bar_starts)

    def with_flat(self, flat: bool) -> Piece:
        """The same piece with another value of `flat`."""
        return replace(self, flat=flat)

    def with_velocities_of(self, given: FrameNotes) -> Piece:
        """The same notes, each with the velocity of the given note of its pitch that begins nearest.

        Args:
            given: Notes on the grid, sorted by (pitch, onset), of every pitch of the piece.
        """
        onset = seconds_to_frames(self.notes["onset_sec"], self.beats_sec)
        n_frames = self.n_beats * FRAMES
        key = given["pitch"].astype(np.int64) * 2 * n_frames + given["onset"]
        wanted = self.notes["pitch"].astype(np.int64) * 2 * n_frames + np.clip(onset, 0, n_frames - 1)
        after = np.minimum(np.searchsorted(key, wanted), key.size - 1)
        before = np.maximum(after - 1, 0)
        nearest = np.where(np.abs(key[before] - wanted) < np.abs(key[after] - wanted), before, after)
        notes = self.notes.copy()
        notes["velocity"] = given["velocity"][nearest]
        return replace(self, notes=notes, flat=False)

    def to_midi(self, path: str | Path, source: str | Path | None = None) -> None:
        """Writes a MIDI file: a quarter note per beat, a tempo per beat, and time signatures if bars are known.

        Args:
            path: File to write.
            source: The MIDI file that the notes were read from; the file written is then a copy of it in which only
                their velocities differ.

        Raises:
            UserError: `source` cannot be read or does not hold the notes.
        """
        if source is None:
            on_frames = self.frame_notes if vars(self).get(_ON_FRAMES) else None
            write_midi(path, self.notes, self.beats_sec, self.downbeats_sec, on_frames)
        else:
            write_velocities(source, path, self.notes)

    def to_pretty_midi(self) -> pretty_midi.PrettyMIDI:
        """Converts the notes to a `pretty_midi.PrettyMIDI`, in seconds: that library cannot represent tempo changes."""
        import pretty_midi  # takes a second to import, and is needed only here

        piano = pretty_midi.Instrument(program=0, name="piano")
        piano.notes = [
            pretty_midi.Note(
                int(n["velocity"]), int(n["pitch"]), float(n["onset_sec"]), float(n["offset_sec"])
            )
            for n in self.notes
        ]
        midi = pretty_midi.PrettyMIDI()
        midi.instruments.append(piano)
        return midi


def as_piece(music: Piece | str | os.PathLike[str]) -> Piece:
    """A piece as it is, or read from the MIDI file of a path.

    Raises:
        UserError: The file or its beats cannot be read.
    """
    return music if isinstance(music, Piece) else Piece.from_midi(os.fspath(music))


def _check_has_notes(midi: MidiContent, path: str | Path) -> None:
    if midi.notes.size == 0:
        drums = f" but {midi.remarks.drum_notes} of drums" if midi.remarks.drum_notes else ""
        raise UserError(f"{path}: holds no notes{drums}; expected a MIDI file with at least one piano note")


def _read_grid(
    path: Path, midi: MidiContent, beats: str | Path | ArrayLike, default_tempo: str, tracker: str | Path
) -> tuple[Grid, Remarks]:
    """Makes the grid that the argument `beats` asks for."""
    if default_tempo not in DEFAULT_TEMPO_CHOICES:
        raise UserError(f"default_tempo={default_tempo}: expected one of {', '.join(DEFAULT_TEMPO_CHOICES)}")
    choice = _choice(path, midi, beats, default_tempo)
    if choice == "tempo_map":
        grid = tempo_map_grid(midi, str(path))
        is_kept = _is_default(midi) and default_tempo == "estimate" and _is_on_clock(midi)
        remarks = replace(
            midi.remarks,
            default_tempo=_is_default(midi) and not is_kept,
            clock_kept=is_kept,
            counted=grid.counted,
            beat_track=None,
        )
    elif choice == "estimate":
        estimate = estimate_beats(midi.notes, load_tracker(tracker))
        grid = annotated_grid(estimate.annotation, midi.notes, str(path)).without_silence(midi.notes)
        remarks = replace(midi.remarks, beat_confidence=estimate.confidence, beat_track=None)
    else:
        annotation, source = _annotated_beats(path, midi, beats if choice is None else choice)
        grid = annotated_grid(annotation, midi.notes, source)
        beat_grids.check_beats_fit(grid.beats_sec, midi.notes["onset_sec"], midi.notes["offset_sec"], source)
        grid = grid.without_silence(midi.notes)
        remarks = midi.remarks if choice == "track" else replace(midi.remarks, beat_track=None)
    return grid, replace(remarks, silent_beats_cut=grid.silent_beats_cut)


def _choice(path: Path, midi: MidiContent, beats: str | Path | ArrayLike, default_tempo: str) -> str | None:
    """The source of beats that applies, one of `BEAT_CHOICES` but auto; None for a path or beat times.

    Raises:
        UserError: Only a default tempo is there, which is to be rejected.
    """
    if not isinstance(beats, str) or beats not in BEAT_CHOICES:
        return None
    is_auto = beats == "auto"
    if is_auto:
        has_file = beat_grids.beat_file_beside(path) is not None
        beats = "file" if has_file else "track" if midi.track_beats_sec is not None else "tempo_map"
    if beats == "tempo_map" and _is_default(midi):
        if default_tempo == "reject":
            raise UserError(
                f"{path}: holds only the default tempo of 120 BPM, or one that the notes do not follow, whose beats "
                "may not be those of the music; put a beat file beside it, or estimate them from the notes with "
                "beats=estimate"
            )
        if is_auto and default_tempo == "estimate" and not _is_on_clock(midi):
            return "estimate"
    return beats


def _is_default(midi: MidiContent) -> bool:
    """Whether the tempo map holds only the tempo of a clock, and no marker of pianolm says that it is meant."""
    return midi.default_tempo is not DefaultTempo.NO and midi.mark is None


def _is_on_clock(midi: MidiContent) -> bool:
    return midi.on_clock >= CLOCK_SHARE


def _annotated_beats(
    path: Path, midi: MidiContent, beats: str | Path | ArrayLike
) -> tuple[BeatAnnotation, str]:
    """Reads beats from a beat track, a file or an array, and names their source for error messages."""
    if isinstance(beats, str) and beats == "track":
        return track_beats(midi, str(path)), str(path)
    if isinstance(beats, str) and beats == "file":
        beat_file = beat_grids.beat_file_beside(path)
        if beat_file is None:
            endings = ", ".join(path.stem + ending for ending in beat_grids.BEAT_FILE_ENDINGS)
            raise UserError(
                f"{path}: no beat file beside it; expected one of {endings}, or use beats='tempo_map'"
            )
        return beat_grids.read_beats(beat_file), str(beat_file)
    if isinstance(beats, (str, Path)):
        return beat_grids.read_beats(beats), str(beats)
    return BeatAnnotation(np.asarray(beats, np.float64)), "beats"
