"""Makes MIDI files by transposition and timing noise, in eight folders of as many files each.

As many files as asked for are made in turn of the MIDI files below a folder. Folder `of_8/3` holds the fourth eighth of
them, and `first/2` links to the first two eighths, so that one set serves every size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pianolm.data.sources.folder import midi_files
from pianolm.errors import UserError
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece

EIGHTHS = (1, 2, 4, 8)
NOISE_SEC = 0.01
_SEMITONES = 6


def read_pieces(source: Path, at_most: int) -> list[Piece]:
    """Every n-th piece of a folder, as many as asked for or fewer where some cannot be read."""
    paths, found = midi_files(source)[0], []
    for path in paths[:: max(-(-len(paths) // at_most), 1)]:
        try:
            found.append(Piece.from_midi(path))
        except UserError:
            continue
    return found


def changed(piece: Piece, rng: np.random.Generator) -> Piece:
    """The piece in another key, with other onsets."""
    notes = piece.notes
    shift = np.clip(
        rng.integers(-_SEMITONES, _SEMITONES), -int(notes["pitch"].min()), 127 - int(notes["pitch"].max())
    )
    onset_sec = np.maximum(notes["onset_sec"] + rng.normal(0, NOISE_SEC, notes.size), 0)
    length_sec = notes["offset_sec"] - notes["onset_sec"]
    moved = make_notes(onset_sec, onset_sec + length_sec, notes["pitch"] + shift, notes["velocity"])
    return Piece.from_notes(moved, piece.beats_sec)


def write_files(sources: list[Piece], root: Path, files: int) -> Iterator[Path]:
    """Writes the files and the links; yields each file once it is there."""
    rng = np.random.default_rng(0)
    for number in range(files):
        piece = changed(sources[number % len(sources)], rng)
        path = root / "of_8" / str(8 * number // files) / f"{number // 1000:03d}" / f"{number:06d}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_midi(path, piece.notes, piece.beats_sec)
        yield path
    for count in EIGHTHS:
        folder = root / "first" / str(count)
        folder.mkdir(parents=True, exist_ok=True)
        for eighth in range(count):
            (folder / str(eighth)).symlink_to((root / "of_8" / str(eighth)).absolute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of MIDI files")
    parser.add_argument("root", type=Path, help="folder to fill")
    parser.add_argument("--files", type=int, default=46_000)
    parser.add_argument("--sources", type=int, default=2_000, help="at most so many files are read")
    args = parser.parse_args()
    read = read_pieces(args.source, args.sources)
    size = sum(path.stat().st_size for path in write_files(read, args.root, args.files))
    print(f"{args.files:,} files of {len(read):,} pieces, {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
