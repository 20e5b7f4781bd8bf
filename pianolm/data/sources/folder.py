"""Any directory of MIDI files, searched to any depth for .mid and .midi.

The composition id is the path without its extension. Files of equal content have the same id, so that copies are in one
split; other versions of a piece are not recognised. Compositions are split by `data.seed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pianolm.data.sources.base import Collection, Record, beat_choice, data_root, seeded_splits
from pianolm.errors import UserError

MIDI_EXTENSIONS = (".mid", ".midi")
_EXPECTED = "a directory with .mid or .midi files at any depth"


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every MIDI file of the directory, with beats from `data.beats`."""
    root = data_root(data, _EXPECTED)
    paths = midi_files(root)
    if not paths:
        raise UserError(f"data.root={data['root']}: no MIDI files; expected {_EXPECTED}")
    return Collection(root, folder_records(root, paths, data, "folder", str(data.get("licence", "unknown"))))


def midi_files(root: Path) -> list[Path]:
    """MIDI files below a directory in sorted order, without hidden ones (some archives add them)."""
    paths = (path for path in root.rglob("*") if path.suffix.lower() in MIDI_EXTENSIONS and path.is_file())
    return sorted(path for path in paths if not path.name.startswith("."))


def folder_records(
    root: Path, paths: list[Path], data: Mapping[str, Any], source: str, licence: str
) -> tuple[Record, ...]:
    """A record for each file, split by composition."""
    names = [path.relative_to(root).as_posix() for path in paths]
    id_of_content: dict[bytes, str] = {}
    compositions = []
    for path, name in zip(paths, names, strict=True):
        content = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
        composition_id = f"{source}/{Path(name).with_suffix('').as_posix()}"
        compositions.append(id_of_content.setdefault(content, composition_id))
    splits = seeded_splits(compositions, data)
    return tuple(
        Record(source, name, path, beat_choice(data), composition, splits[composition], licence=licence)
        for path, name, composition in zip(paths, names, compositions, strict=True)
    )
