"""`Piece`: the notes of a piano piece on its beat grid, from MIDI and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError
from pianolm.music import bars
from pianolm.music import beats as beat_grids
from pianolm.music.beats import BeatAnnotation, Repairs
from pianolm.music.cells import (
    Cells,
    Collisions,
    FrameNotes,
    cells_to_frames,
    frames_to_cells,
    frames_to_notes,
    notes_to_frames,
)
from pianolm.music.midi import MidiContent, read_midi, write_midi
from pianolm.music.notes import Notes, is_flat

if TYPE_CHECKING:
    import pretty_midi

_NO_REPAIRS = Repairs()
BEAT_CHOICES = ("auto", "file", "tempo_map", "track")


@dataclass(frozen=True, eq=False)
class Piece:
    """Piano notes and the beats they lie on.

    Attributes:
        notes: [N] note array (`pianolm.music.notes.NOTE_DTYPE`): onset_sec, offset_sec, pitch, velocity, sorted by
            (onset, pitch).
        beats_sec: [B + 1] beat times in seconds, strictly increasing, every beat within 15–480 BPM; the notes lie
            inside. Beat b spans `beats_sec[b]` to `beats_sec[b + 1]`.
        flat: Whether the velocities say nothing (one constant, or a score), so that no loss is taken on them.
        downbeats_sec: [D] seconds of the bars' first beats, None where unknown.
        repairs: What had to be changed in the beats as annotated.
        skipped: Tokens that `PianoTokenizer.decode` left out because they were ill-formed, and those that it missed.
    """

    notes: Notes
    beats_sec: NDArray[np.float64]
    flat: bool
    downbeats_sec: NDArray[np.float64] | None = None
    repairs: Repairs = _NO_REPAIRS
    skipped: int = 0

    @property
    def beats(self) -> NDArray[np.float64]:
        """[B + 1] beat times in seconds."""
        return self.beats_sec

    @property
    def n_beats(self) -> int:
        """Beats of the grid, silent ones included."""
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
        """Notes that the roll merged or cut."""
        return self._framed[1]

    @cached_property
    def cells(self) -> Cells:
        """The active (beat, pitch) cells: see `pianolm.music.cells.Cells`."""
        return frames_to_cells(self.frame_notes, self.n_beats)

    @cached_property
    def bar_starts(self) -> NDArray[np.intp]:
        """[D'] the beats, counted from 0, at which a bar begins: see `pianolm.music.bars.bar_starts`."""
        return bars.bar_starts(self.beats_sec, self.downbeats_sec)

    @classmethod
    def from_midi(
        cls,
        path: str | Path,
        beats: str | Path | ArrayLike = "auto",
        flat: bool | None = None,
    ) -> Piece:
        """Reads a MIDI file and its beats.

        Args:
            path: MIDI file.
            beats: A beat annotation file, an array of beat times in seconds, `"tempo_map"` (the file's own quarter
                notes), `"track"` (its track called beats), `"file"` (the beat file beside it), or `"auto"` (that
                file if it is there, else the beat track, else the tempo map).
            flat: Whether to treat the velocities as meaningless; None finds out from the notes.

        Raises:
            UserError: The MIDI file or its beats cannot be read, or the file holds no notes.
        """
        midi = read_midi(path)
        if midi.notes.size == 0:
            raise UserError(f"{path}: holds no notes; give a MIDI file with at least one piano note")
        annotation, source = _resolve_beats(Path(path), midi, beats)
        return cls.from_notes(midi.notes, annotation, flat, name=source)

    @classmethod
    def from_notes(
        cls, notes: Notes, beats: BeatAnnotation | ArrayLike, flat: bool | None = None, name: str = "beats"
    ) -> Piece:
        """Puts notes [N] on a beat grid, which is repaired and extended to cover them."""
        annotation = (
            beats if isinstance(beats, BeatAnnotation) else BeatAnnotation(np.asarray(beats, np.float64))
        )
        repaired, repairs = beat_grids.repair_beats(annotation.beats_sec, name)
        grid = beat_grids.cover(repaired, notes["onset_sec"], notes["offset_sec"], name)
        ahead = int(np.searchsorted(grid, repaired[0]))
        down = annotation.downbeat
        return cls(
            notes=notes,
            beats_sec=grid,
            flat=is_flat(notes) if flat is None else flat,
            downbeats_sec=None if down is None else annotation.beats_sec[down],
            repairs=replace(repairs, ahead=ahead, behind=grid.size - repaired.size - ahead),
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
        """The piece whose roll has these cells, on `n_beats + 1` beat times; bars begin at these [D] of them."""
        assert beats_sec.size == cells.n_beats + 1, "one beat time more than beats"
        notes = frames_to_notes(cells_to_frames(cells), beats_sec)
        downbeats_sec = None if bar_starts is None or not bar_starts.size else beats_sec[bar_starts]
        return cls(notes, beats_sec, flat, downbeats_sec, skipped=skipped)

    def on_beats(self, beats_sec: NDArray[np.float64]) -> Piece:
        """The same roll with the same bars on other beat times [B + 1]."""
        return Piece.from_cells(self.cells, beats_sec, self.flat, self.skipped, self.bar_starts)

    def from_beat(self, first: int) -> Piece:
        """The piece from a beat on, which is at 0 seconds then; a note that goes on from before begins with it."""
        here = self.cells.beat >= first
        cells = Cells(
            beat=self.cells.beat[here] - np.int32(first),
            pitch=self.cells.pitch[here],
            sustain=self.cells.sustain[here],
            onset=self.cells.onset[here],
            segment_velocity=self.cells.segment_velocity[np.repeat(here, self.cells.segment_count)],
            n_beats=self.n_beats - first,
        )
        beats_sec = self.beats_sec[first:] - self.beats_sec[first]
        bar_starts = self.bar_starts[self.bar_starts >= first] - first
        return Piece.from_cells(cells, beats_sec, self.flat, self.skipped, bar_starts)

    def with_flat(self, flat: bool) -> Piece:
        """The same piece with its velocities declared meaningless, or not."""
        return replace(self, flat=flat)

    def to_midi(self, path: str | Path) -> None:
        """Writes the piece so that it opens on the grid: its tempo, a quarter note a beat, and its bars if known."""
        write_midi(path, self.notes, self.beats_sec, self.downbeats_sec)

    def to_pretty_midi(self) -> pretty_midi.PrettyMIDI:
        """The notes as a `pretty_midi.PrettyMIDI` (seconds; that library cannot hold the tempo changes)."""
        import pretty_midi  # a second to import, and only who asks for it needs it

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


def _resolve_beats(
    path: Path, midi: MidiContent, beats: str | Path | ArrayLike
) -> tuple[BeatAnnotation, str]:
    """Finds the beats a caller asked for, and a name for them."""
    if isinstance(beats, str) and beats == "auto":
        beats = (
            "file"
            if beat_grids.beat_file_beside(path)
            else "track"
            if midi.track_beats_sec is not None
            else "tempo_map"
        )
    if isinstance(beats, str) and beats == "tempo_map":
        return beat_grids.tempo_map_beats(midi), str(path)
    if isinstance(beats, str) and beats == "track":
        return beat_grids.track_beats(midi, str(path)), str(path)
    if isinstance(beats, str) and beats == "file":
        found = beat_grids.beat_file_beside(path)
        if found is None:
            endings = ", ".join(path.stem + ending for ending in beat_grids.BEAT_FILE_ENDINGS)
            raise UserError(
                f"{path}: no beat file beside it; expected one of {endings}, or use beats='tempo_map'"
            )
        return beat_grids.read_beats(found), str(found)
    if isinstance(beats, (str, Path)):
        return beat_grids.read_beats(beats), str(beats)
    return BeatAnnotation(np.asarray(beats, np.float64)), "beats"
