"""Cuts the prompts of run.sh: 48 beats from the first bar on, as MIDI with a beat file beside it.

python songs.py POP909 OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from pianolm.data.sources import pop909
from pianolm.evaluation.excerpts import opening
from pianolm.music.piece import Piece

EVERY = 8
"""Every eighth validation song of POP909, from the first on."""

PROMPT_BEATS, NEW_BEATS = 16, 32


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
        piece = opening(song, PROMPT_BEATS + NEW_BEATS)
        assert piece is not None, "every song is long enough"
        save(piece, out / f"{record.midi_path.stem}.mid")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
