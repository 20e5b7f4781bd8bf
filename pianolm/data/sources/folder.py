"""Any directory of MIDI files, searched to any depth for .mid and .midi.

The composition id is the path without its extension. Files of equal content have the same id, so that copies are in one
split; other versions of a piece are not recognised. Compositions are split by `data.seed`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pianolm.data.file_progress import with_progress
from pianolm.data.sources.base import (
    Collection,
    Record,
    Reject,
    beat_choice,
    data_root,
    printable,
    seeded_splits,
)
from pianolm.errors import UserError

MIDI_EXTENSIONS = (".mid", ".midi")
_EXPECTED = "a directory with .mid or .midi files at any depth"
_QUOTED_REASONS = 3


def collect(data: Mapping[str, Any], cache: Path) -> Collection:
    """Every MIDI file of the directory, with beats from `data.beats`."""
    root = data_root(data, _EXPECTED)
    paths, unusable = midi_files(root)
    licence = str(data.get("licence", "unknown"))
    records, unreadable = folder_records(root, paths, data, "folder", licence)
    rejects = sorted([*unusable, *unreadable])
    if not records:
        reasons = "".join(f"; {path}: {reason}" for path, reason in rejects[:_QUOTED_REASONS])
        raise UserError(f"data.root={data['root']}: no MIDI files; expected {_EXPECTED}{reasons}")
    return Collection(root, records, rejects=tuple(rejects))


def midi_files(root: Path) -> tuple[list[Path], list[Reject]]:
    """Finds the MIDI files below a directory, without hidden ones (some archives add them).

    Links are followed, and every directory is searched once, under its own name if it lies below `root`. Only regular
    files are returned, so that no pipe or device is ever opened.

    Returns:
        Paths in sorted order, and (path relative to `root`, reason) of what cannot be used.
    """
    paths: list[Path] = []
    rejects: list[Reject] = []
    directories, links = [root], list[Path]()
    searched: set[tuple[int, int]] = set()
    while directories or links:
        directory = directories.pop() if directories else links.pop()
        try:
            status = directory.stat()
            if (status.st_dev, status.st_ino) in searched:
                continue
            names = sorted(os.listdir(directory))
        except OSError as error:
            rejects.append((_relative(directory, root), f"folder cannot be read: {error.strerror}"))
            continue
        searched.add((status.st_dev, status.st_ino))
        for path in map(directory.joinpath, names):
            kind = _kind(path)
            if kind == "folder":
                (links if path.is_symlink() else directories).append(path)
            elif path.suffix.lower() in MIDI_EXTENSIONS and not path.name.startswith("."):
                if kind == "file":
                    paths.append(path)
                else:
                    rejects.append((_relative(path, root), f"{kind}; expected a file"))
    return sorted(paths), rejects


def _kind(path: Path) -> str:
    """Whether a path is a file, a folder or something else; links are followed."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "a pipe, socket or device"


def _relative(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def folder_records(
    root: Path, paths: list[Path], data: Mapping[str, Any], source: str, licence: str
) -> tuple[tuple[Record, ...], list[Reject]]:
    """A record for each file that can be read, split by composition, and the files that cannot, with reasons."""
    id_of_content: dict[bytes, str] = {}
    compositions: dict[Path, str] = {}
    rejects: list[Reject] = []
    for path in with_progress(paths, len(paths), "prepare: looks for copies in"):
        name = _relative(path, root)
        try:
            content = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
        except OSError as error:
            rejects.append((name, f"cannot be read: {error.strerror}"))
            continue
        composition_id = f"{source}/{PurePosixPath(name).with_suffix('')}"
        compositions[path] = id_of_content.setdefault(content, composition_id)
    splits = seeded_splits(compositions.values(), data)
    beats = beat_choice(data)
    return tuple(
        Record(source, _relative(path, root), path, beats, composition, splits[composition], licence=licence)
        for path, composition in compositions.items()
    ), rejects
