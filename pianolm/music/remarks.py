"""`Remarks`: what reading a MIDI file or generating a piece decided and left out, as counts and as sentences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remarks:
    """Decisions made while a MIDI file was read. Every default value means that there is nothing to report.

    Attributes:
        default_tempo: The beats come from the tempo map, and that holds only the tempo of a clock (see
            `pianolm.music.tempo_map.TempoMap.default_tempo`).
        beat_confidence: How sure the beats are that were estimated from the notes, 0–1 (see
            `pianolm.music.beat_estimation.BeatEstimate`); None if they have another source.
        clock_kept: The beats are those of the default tempo, because nearly all notes lie on its grid.
        counted: Metres whose beat had to be chosen, such as "6/8 in dotted quarters".
        beat_track: Name of the track that the beats were taken from; None if they have another source.
        beat_track_notes: Notes of beat tracks, which are not music.
        drum_notes: Notes of drum tracks that were left out.
        drum_tracks: Names of tracks left out as drums for their name, not for their channel.
        other_notes: Notes of programs that were not asked for, left out.
        other_programs: These programs, 0–127.
        unended_notes: Notes without a note-off event, held to an all-notes-off event or the end of their track.
        missing_tracks: Tracks that the header announces and the file does not hold.
        cut_tracks: Tracks without an end-of-track event, or with data after it, which is left out.
        pedalled_notes: Notes that the sustain pedal made longer.
        silent_beats_cut: Beats removed from a long silence before the first note.
        generated: Sentences about how a generated piece differs from what was asked for.
    """

    default_tempo: bool = False
    beat_confidence: float | None = None
    clock_kept: bool = False
    counted: tuple[str, ...] = ()
    beat_track: str | None = None
    beat_track_notes: int = 0
    drum_notes: int = 0
    drum_tracks: tuple[str, ...] = ()
    other_notes: int = 0
    other_programs: tuple[int, ...] = ()
    unended_notes: int = 0
    missing_tracks: int = 0
    cut_tracks: int = 0
    pedalled_notes: int = 0
    silent_beats_cut: int = 0
    generated: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """One sentence per remark; empty if there is nothing to report."""
        programs = ", ".join(map(str, self.other_programs))
        drums = ", ".join(map(repr, self.drum_tracks))
        cases = {
            "only the default tempo of 120 BPM, or one that the notes do not follow: "
            "beats may not be those of the music": self.default_tempo,
            f"beats estimated from the notes, confidence {self.beat_confidence or 0:.2f}": (
                self.beat_confidence is not None
            ),
            "only the default tempo of 120 BPM, kept as the notes lie on its grid": self.clock_kept,
            f"beats counted: {', '.join(self.counted)}": self.counted,
            f"beats taken from the track {self.beat_track!r}": self.beat_track is not None,
            f"{self.beat_track_notes} note(s) of beat tracks left out": self.beat_track_notes,
            f"{self.drum_notes} drum note(s) left out": self.drum_notes,
            f"tracks taken as drums by their names: {drums}": self.drum_tracks,
            f"{self.other_notes} note(s) of other instruments left out (programs {programs})": self.other_notes,
            f"{self.unended_notes} note(s) without an end held to the end of their track": self.unended_notes,
            f"{self.missing_tracks} track(s) that the header announces are missing": self.missing_tracks,
            f"{self.cut_tracks} track(s) may lack notes: they have no end-of-track event, or data after it": (
                self.cut_tracks
            ),
            f"{self.pedalled_notes} note(s) extended by the sustain pedal": self.pedalled_notes,
            f"{self.silent_beats_cut} silent beat(s) before the first note cut": self.silent_beats_cut,
        }
        return [*(sentence for sentence, applies in cases.items() if applies), *self.generated]
