"""Common parts of data sources: records, composition ids, splits and reading of tables."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pianolm.data.cell_store import SPLITS
from pianolm.errors import UserError
from pianolm.music.piece import BEAT_CHOICES

Options = Mapping[str, Any]
"""The options of the group `data`."""

KINDS = ("performance", "score")
_SPLIT_NAMES = {split: split for split in SPLITS} | {"valid": "validation", "val": "validation"}


Reject = tuple[str, str]
"""Path of a file that cannot be used, relative to the root of its data set, and the reason."""


def printable(name: str) -> str:
    """A file name in which bytes that are not UTF-8 are escaped, so that it can be written to tables."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def relative(path: str | Path, root: Path) -> str:
    """A printable path relative to a root above it, with forward slashes.

    Several times as fast as pathlib, which is felt with tens of thousands of files.
    """
    path, prefix = os.fspath(path), f"{root}{os.sep}"
    below = path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, root)
    return printable(below.replace(os.sep, "/"))


@dataclass(frozen=True)
class Record:
    """A MIDI file of a data set and its metadata.

    Attributes:
        source: Name of the data set.
        path: Path of the MIDI file relative to the data set's root, with forward slashes.
        midi_path: The file.
        beats: A beat file, or "auto", "file", "tempo_map", "track" or "estimate" as in `Piece.from_midi`.
        composition: The same id for every performance, edition and copy of a composition, in all data sets.
        split: train, validation or test.
        kind: performance or score.
        licence: Licence that the data set states.
        attribution: Whom the licence asks to name.
        composer: Composer, empty where the data set has none.
        title: Title, empty where the data set has none.
        seeded: Whether the split was drawn by `data.seed` rather than published.
    """

    source: str
    path: str
    midi_path: Path
    beats: Path | str
    composition: str
    split: str
    kind: str = "performance"
    licence: str = "unknown"
    attribution: str = ""
    composer: str = ""
    title: str = ""
    seeded: bool = False

    @property
    def id(self) -> str:
        """Unique in all data sets, such as `asap/Bach/Fugue/bwv_846/Shi05M.mid`."""
        return f"{self.source}/{self.path}"


@dataclass(frozen=True)
class Excluded:
    """A piece that is left out because its work must not be used, or for the quality that the data set states.

    Attributes:
        path: Path of the MIDI file relative to the data set's root.
        work: Composer and title.
        why: The reason.
    """

    path: str
    work: str
    why: str


@dataclass(frozen=True)
class Collection:
    """A data set as found on disk.

    Attributes:
        root: Directory that paths are relative to.
        records: Files to read.
        tables: Metadata files from which the records were made.
        rejects: (path relative to root, reason) of listed files that cannot be records.
        parts: Data sets of a mix by name; paths are relative to their roots.
        excluded: Pieces left out because of their works or their audio score.
        hashed: Size and content hash of the files, by their full path, that were hashed to find the records.
    """

    root: Path
    records: tuple[Record, ...]
    tables: tuple[Path, ...] = ()
    rejects: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, Collection], ...] = ()
    excluded: tuple[Excluded, ...] = ()
    hashed: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[Path, ...]:
        """The root directories of the collection and its parts."""
        return (self.root, *(root for _, part in self.parts for root in part.roots))

    def relative(self, path: str | Path) -> str:
        """A path relative to the root, with forward slashes; in a mix preceded by the part's name."""
        for name, part in self.parts:
            if os.fspath(path).startswith(f"{part.root}{os.sep}"):
                return f"{name}/{part.relative(path)}"
        return relative(path, self.root)


def data_root(data: Mapping[str, Any], expected: str, published: str = "") -> Path:
    """The directory that `data.root` names.

    Args:
        data: The `data` group of the configuration.
        expected: Description of the directory, for the error message.
        published: Where the data set is published and under which licence, for the error message.

    Raises:
        UserError: The key is missing or names no directory.
    """
    root = data.get("root")
    expected = f"{expected}, {published}" if published else expected
    if not root:
        raise UserError(
            f"data.root is not set: data={data['source']} expects {expected}; give data.root=PATH"
        )
    path = Path(root).expanduser()
    if not path.is_dir():
        found = "a file" if path.exists() else "no such directory"
        raise UserError(f"data.root={root}: {found}; expected {expected}")
    return path


def beat_choice(data: Mapping[str, Any]) -> str:
    """The value of `data.beats`.

    Raises:
        UserError: It is none of `BEAT_CHOICES`.
    """
    choice = str(data.get("beats", "auto"))
    if choice not in BEAT_CHOICES:
        raise UserError(f"data.beats={choice} found, expected one of {', '.join(BEAT_CHOICES)}")
    return choice


def annotated_beats(data: Mapping[str, Any], annotation: Path) -> Path | str:
    """The annotation file of a data set, unless `data.beats` asks for another source of beats."""
    choice = beat_choice(data)
    return annotation if choice in ("auto", "file") else choice


def read_table(path: Path, columns: Sequence[str], expected: str) -> list[dict[str, str]]:
    """Rows of a comma-separated file.

    Args:
        path: The file.
        columns: Required columns.
        expected: Description of the folder, for the error message.

    Raises:
        UserError: The file is missing, not text, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"data.root={path.parent}: no {path.name}; expected {expected}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a comma-separated text file ({error}); expected {expected}") from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; expected {expected}")
    return rows


def split_name(text: str, path: Path) -> str:
    """train, validation or test, from the spelling of a published table."""
    try:
        return _SPLIT_NAMES[text.strip().lower()]
    except KeyError:
        raise UserError(f"{path}: split {text!r} found, expected one of {', '.join(SPLITS)}") from None


def composition_id(composer: str, title: str) -> str:
    """`composer/title` as slugs, so that data sets with the same titles share ids."""
    return f"{slug(composer)}/{slug(title)}"


def slug(text: str) -> str:
    """Lower case ASCII, words joined by hyphens."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9#]+", "-", ascii_text.lower()).strip("-")


def seeded_splits(compositions: Iterable[str], data: Mapping[str, Any]) -> dict[str, str]:
    """Splits compositions at random. The split depends on `data.seed` and the ids, not on their order.

    A fraction above zero gets at least one composition if there are enough for each split.

    Raises:
        UserError: The fractions leave nothing to train on.
    """
    seed, fractions = data.get("seed", 0), {}
    for key in ("validation_fraction", "test_fraction"):
        fractions[key] = float(data.get(key, 0.1))
        if not 0 <= fractions[key] < 1:
            raise UserError(f"data.{key}={fractions[key]}: expected a fraction of at least 0 and below 1")
    if sum(fractions.values()) >= 1:
        raise UserError("data.validation_fraction + data.test_fraction is 1 or more, expected less than 1")
    shuffled = sorted(set(compositions), key=lambda name: shuffle_key(seed, name))
    count = len(shuffled)
    validation = min(_split_size(count, fractions["validation_fraction"], needed=2), max(count - 1, 0))
    test = min(_split_size(count, fractions["test_fraction"], needed=3), max(count - 1 - validation, 0))
    names = ["validation"] * validation + ["test"] * test
    return dict(zip(shuffled, names + ["train"] * (count - len(names)), strict=True))


def _split_size(count: int, fraction: float, needed: int) -> int:
    return max(round(count * fraction), int(fraction > 0 and count >= needed))


def shuffle_key(seed: object, name: str) -> bytes:
    """Sort key that shuffles names independently of their order."""
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()


def settle_splits(records: Iterable[Record]) -> list[Record]:
    """Gives every composition one split. Where records disagree, test wins over validation over train.

    With the records of several data sets, a composition in the test split of one is not trained on in another.
    """
    records = list(records)
    split_of: dict[str, str] = {}
    for record in records:
        other = split_of.get(record.composition, record.split)
        split_of[record.composition] = max(other, record.split, key=SPLITS.index)
    return [replace(record, split=split_of[record.composition]) for record in records]
