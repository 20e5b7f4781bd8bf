"""Compares the tracker with both annotations of POP909's validation songs, and these with each other.

    python annotations.py TRACKER POP909 OUT.jsonl

TRACKER is a packed tracker, POP909 the folder that holds POP909/. Every song has beats found in its MIDI file
(beat_midi.txt, what `data=pop909` reads) and beats found in the recording (beat_audio.txt).
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.results import Row, write_rows
from pianolm.evaluation.beats import agreement
from pianolm.music.beat_estimation import estimate_beats
from pianolm.music.beat_network import BeatNetwork
from pianolm.music.beats import BeatAnnotation, read_beats
from pianolm.music.midi import read_midi

SONGS = range(721, 801)


def compare(song: Path, network: BeatNetwork) -> Row:
    """F-measures of a song: the tracker's against either annotation, and those of the recording against the MIDI's."""
    midi, audio = read_beats(song / "beat_midi.txt"), read_beats(song / "beat_audio.txt")
    found = estimate_beats(read_midi(song / f"{song.name}.mid").notes, network).annotation
    return {
        "song": song.name,
        **scores("midi", midi, found),
        **scores("audio", audio, found),
        **scores("between", midi, audio),
    }


def scores(name: str, annotated: BeatAnnotation, found: BeatAnnotation) -> Row:
    """F-measures of beats and downbeats."""
    assert found.downbeat is not None, "both annotations and the tracker have downbeats"
    same = agreement(annotated, found.beats_sec, found.downbeat)
    return {f"{name}_beat_f": round(same.beat_f, 3), f"{name}_downbeat_f": round(same.downbeat_f, 3)}


def main(tracker: Path, pop909: Path, out: Path) -> None:
    network = BeatNetwork.from_directory(tracker)
    write_rows(out, [compare(pop909 / "POP909" / f"{song}", network) for song in SONGS])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
