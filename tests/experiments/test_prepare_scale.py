"""Files of experiment `prepare-scale`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pianolm.data.sources.folder import midi_files
from pianolm.music.piece import Piece
from tests.experiment import load


def test_files_are_other_keys_of_the_pieces_with_noise_in_eight_folders(
    tmp_path: Path, midi_file: Callable[..., Path]
) -> None:
    make = load("benchmarks/prepare-scale/make.py")
    for seed in range(2):
        midi_file(tmp_path / "songs" / f"{seed}.mid", seed)
    (tmp_path / "songs" / "damaged.mid").write_bytes(b"no music")
    pieces = make.read_pieces(tmp_path / "songs", 10)
    assert len(pieces) == 2
    written = list(make.write_files(pieces, tmp_path / "made", 16))
    assert len(written) == len(set(written)) == 16
    counts = [len(midi_files(tmp_path / "made" / "first" / str(eighths))[0]) for eighths in make.EIGHTHS]
    assert counts == [2, 4, 8, 16]
    read = [Piece.from_midi(path) for path in written]
    order = [np.argsort(piece.notes["pitch"].astype(int), kind="stable") for piece in (pieces[1], read[1])]
    shift = read[1].notes["pitch"][order[1]].astype(int) - pieces[1].notes["pitch"][order[0]]
    assert np.unique(shift).size == 1
    moved = np.sort(read[1].notes["onset_sec"]) - np.sort(pieces[1].notes["onset_sec"])
    assert 0 < np.abs(moved).max() < 8 * make.NOISE_SEC
    assert len({path.read_bytes() for path in written}) == 16
