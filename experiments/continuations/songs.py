"""Cuts the prompts of run.sh: 48 beats from the first bar on, as MIDI with a beat file beside it.

python songs.py POP909 OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pianolm.data.sources import pop909
from pianolm.music.beats import BeatAnnotation
from pianolm.music.piece import Piece

EVERY = 8
"""Every eighth validation song of POP909, from the first on."""

PROMPT_BEATS, NEW_BEATS = 16, 32


def opening(song: Piece, beats: int) -> Piece:
    """The first `beats` beats from the first bar line after the first note: an upbeat is left out."""
    first = int(np.searchsorted(song.beats_sec, song.notes["onset_sec"].min(), side="right")) - 1
    bars = song.bar_starts
    start = int(bars[bars >= first].min())
    return cut(song, start, start + beats)


def cut(piece: Piece, first: int, last: int) -> Piece:
    """The notes struck in beats `first` to `last` − 1; notes that sound beyond the last beat are cut there."""
    beats_sec = piece.beats_sec[first : last + 1]
    struck = (piece.notes["onset_sec"] >= beats_sec[0]) & (piece.notes["onset_sec"] < beats_sec[-1])
    notes = piece.notes[struck]
    notes["offset_sec"] = np.minimum(notes["offset_sec"], beats_sec[-1])
    for name in ("onset_sec", "offset_sec"):
        notes[name] -= beats_sec[0]
    downbeat = np.isin(np.arange(first, first + beats_sec.size), piece.bar_starts)
    return Piece.from_notes(notes, BeatAnnotation(beats_sec - beats_sec[0], downbeat))


def save(piece: Piece, path: Path) -> None:
    """Writes MIDI and beats, in ASAP's format."""
    piece.to_midi(path)
    bars = set(piece.bar_starts.tolist())
    rows = [
        f"{at_sec:.6f}\t{at_sec:.6f}\t{'db' if beat in bars else 'b'}\n"
        for beat, at_sec in enumerate(piece.beats_sec)
    ]
    path.with_name(f"{path.stem}_annotations.txt").write_text("".join(rows), "utf-8")


def main(root: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    records = pop909.collect({"source": "pop909", "root": root}, out).records
    for record in [one for one in records if one.split == "validation"][::EVERY]:
        song = Piece.from_midi(record.midi_path, beats=record.beats)
        save(opening(song, PROMPT_BEATS + NEW_BEATS), out / f"{record.midi_path.stem}.mid")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
