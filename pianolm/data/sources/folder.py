"""Any directory of MIDI files, searched to any depth for .mid and .midi.

The composition id is the path without its extension. Files of equal content have the same id, so that copies are in one
split. Compositions are split by `data.seed`. `data.kind` says whether all of them are performances or scores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolm.data.file_hashes import HASHES
from pianolm.data.file_progress import with_progress
from pianolm.data.sources.base import (
    Collection,
    Record,
    Reject,
    beat_choice,
    data_root,
    relative,
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
    found = folder_collection(root, paths, data, "folder", licence)
    rejects = sorted([*unusable, *found.rejects])
    if not found.records:
        reasons = "".join(f"; {path}: {reason}" for path, reason in rejects[:_QUOTED_REASONS])
        raise UserError(f"data.root={data['root']}: no MIDI files; expected {_EXPECTED}{reasons}")
    return replace(found, rejects=tuple(rejects))


def midi_files(root: Path) -> tuple[list[Path], list[Reject]]:
    """Finds the MIDI files below a directory, without hidden ones (some archives add them).

    Links are followed, and every directory is searched once, under its own name if it lies below `root`. Only regular
    files are returned, so that no pipe or device is ever opened.

    Returns:
        Paths in sorted order, and (path relative to `root`, reason) of what cannot be used.
    """
    paths: list[str] = []
    rejects: list[Reject] = []
    directories, links = [os.fspath(root)], list[str]()
    searched: set[tuple[int, int]] = set()
    while directories or links:
        directory = directories.pop() if directories else links.pop()
        try:
            status = os.stat(directory)
            if (status.st_dev, status.st_ino) in searched:
                continue
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            rejects.append((relative(directory, root), f"folder cannot be read: {error.strerror}"))
            continue
        searched.add((status.st_dev, status.st_ino))
        for entry in entries:
            kind = _kind(entry)
            if kind == "folder":
                (links if entry.is_symlink() else directories).append(entry.path)
            elif entry.name.lower().endswith(MIDI_EXTENSIONS) and not entry.name.startswith("."):
                if kind == "file":
                    paths.append(entry.path)
                else:
                    rejects.append((relative(entry.path, root), f"{kind}; expected a file"))
    return [Path(path) for path in sorted(paths, key=lambda path: path.split(os.sep))], rejects


def _kind(entry: os.DirEntry[str]) -> str:
    """Whether an entry is a file, a folder or something else; links are followed."""
    try:
        if entry.is_symlink():
            entry.stat()  # raises where the link leads nowhere
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "a pipe, socket or device"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def folder_collection(
    root: Path, paths: list[Path], data: Mapping[str, Any], source: str, licence: str
) -> Collection:
    """A record for each file that can be read, split by composition, and the files that cannot, with reasons."""
    id_of_content, hashed = dict[str, str](), dict[str, tuple[int, str]]()
    found: list[tuple[str, Path, str]] = []
    rejects: list[Reject] = []
    hashes = HASHES.below(root)
    for path in with_progress(paths, len(paths), "prepare: looks for copies in"):
        name = relative(path, root)
        try:
            hashed[os.fspath(path)] = size_and_hash = hashes.of(path)
        except OSError as error:
            rejects.append((name, f"cannot be read: {error.strerror}"))
            continue
        composition = id_of_content.setdefault(size_and_hash[1], f"{source}/{os.path.splitext(name)[0]}")
        found.append((name, path, composition))
    hashes.save()
    splits = seeded_splits((composition for _, _, composition in found), data)
    beats, kind = beat_choice(data), str(data.get("kind", "performance"))
    records = tuple(
        Record(source, name, path, beats, composition, splits[composition], kind, licence, seeded=True)
        for name, path, composition in found
    )
    return Collection(root, records, rejects=tuple(rejects), hashed=hashed)
