"""POP909 (github.com/music-x-lab/POP909-Dataset): piano arrangements of pop songs, tracks merged.

Songs 001–720 are the training split, 721–800 validation, 801–909 test, as published; in a mix, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import Collection, Record, annotated_beats, data_root
from pianolm.errors import UserError

LICENCE, ATTRIBUTION = "MIT", "POP909, copyright (c) 2020 Music X Lab"
_EXPECTED = "the POP909 folder (with POP909/001/001.mid in it)"
_PUBLISHED = f"published at github.com/music-x-lab/POP909-Dataset under {LICENCE}"
_LAST_TRAIN, _LAST_VALIDATION = 720, 800


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every song folder with a name of three digits."""
    root = data_root(data, _EXPECTED, _PUBLISHED)
    songs_dir = root / "POP909" if (root / "POP909").is_dir() else root
    songs = sorted(path for path in songs_dir.glob("[0-9][0-9][0-9]") if path.is_dir())
    if not songs:
        raise UserError(f"data.root={data['root']}: no song folders 001, 002, …; expected {_EXPECTED}")
    records = tuple(
        Record(
            source="pop909",
            path=f"{song.name}/{song.name}.mid",
            midi_path=song / f"{song.name}.mid",
            beats=annotated_beats(data, song / "beat_midi.txt"),
            composition=f"pop909/{song.name}",
            split=_split(int(song.name)),
            licence=LICENCE,
            attribution=ATTRIBUTION,
        )
        for song in songs
    )
    return Collection(songs_dir, records)


def _split(number: int) -> str:
    if number <= _LAST_TRAIN:
        return "train"
    return "validation" if number <= _LAST_VALIDATION else "test"
