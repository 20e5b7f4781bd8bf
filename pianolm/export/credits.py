"""The music that a model learned from: sets, licences, whom to credit, and works.

An artifact's record names what it was made from, down to the cells of stage prepare, whose `pieces.csv` has every
piece. A model that left its artifacts behind carries `CREDITS.csv` and, where they are known, its works in `WORKS.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from pianolm import models
from pianolm.artifacts import read_record
from pianolm.csv_file import write_csv
from pianolm.errors import UserError
from pianolm.models import WORKS

CREDITS = "CREDITS.csv"


@dataclass(frozen=True)
class Credit:
    """Pieces of one set with one licence and attribution.

    Attributes:
        source: Data set.
        licence: As the data set spells it.
        attribution: Whom the licence asks to name; may be empty.
        pieces: Number of pieces to train and validate on.
        notes: Their struck notes.
    """

    source: str
    licence: str
    attribution: str
    pieces: int
    notes: int


@dataclass(frozen=True)
class Work:
    """A work of a set: an id as `composer/title`, and how many pieces are versions of it."""

    source: str
    work: str
    pieces: int


@dataclass(frozen=True)
class Credits:
    """What a model learned from, as far as it is known.

    Attributes:
        sets: Rows of `CREDITS.csv`.
        works: Rows of `WORKS.csv`.
    """

    sets: list[Credit]
    works: list[Work]

    def write(self, out: Path) -> None:
        """Writes `CREDITS.csv` and `WORKS.csv`, each where it has rows."""
        for name, cls, rows in ((CREDITS, Credit, self.sets), (WORKS, Work, self.works)):
            if rows:
                write_csv(out / name, [field.name for field in fields(cls)], map(astuple, rows))


def credits_of(model: Path, roots: Iterable[Path]) -> Credits:
    """The music that a model, and the model it started from, learned from.

    Args:
        model: Its directory.
        roots: Directories of artifacts, in which those that it was made from are looked for.

    Raises:
        UserError: A table cannot be read.
    """
    roots = [model.parent.parent, *roots]
    sets: dict[tuple[str, str, str], Credit] = {}
    works: dict[tuple[str, str], Work] = {}
    for directory in _origins(model, roots):
        if (directory / CREDITS).is_file():
            found = Credits(_read_credits(directory / CREDITS), _read_works(directory / WORKS))
        else:
            found = _counted(directory / "pieces.csv")
        for (
            row
        ) in found.sets:  # the base model may have learned from the same pieces: the larger numbers stand
            key = (row.source, row.licence, row.attribution)
            sets[key] = max(row, sets.get(key, row), key=lambda credit: credit.pieces)
        for work in found.works:
            name = (work.source, work.work)
            works[name] = max(work, works.get(name, work), key=lambda one: one.pieces)
    return Credits([sets[key] for key in sorted(sets)], [works[name] for name in sorted(works)])


def _origins(model: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """Directories with credits or with cells from which a model was made, itself included."""
    waiting, seen = [model], {model.name}
    while waiting:
        directory = waiting.pop()
        if (directory / CREDITS).is_file() or (directory / "pieces.csv").is_file():
            yield directory
            continue
        upstream = (read_record(directory) or {}).get("upstream")
        for name in upstream.values() if isinstance(upstream, dict) else ():
            if str(name) not in seen:
                seen.add(str(name))
                waiting += _find(str(name), roots)


def _find(fingerprint: str, roots: Sequence[Path]) -> list[Path]:
    """The artifact, or the bundled model, of a fingerprint; an empty list where it is not at hand."""
    if not fingerprint.isalnum():
        return []
    stored = (path for root in roots for path in root.glob(f"*/{fingerprint}") if path.is_dir())
    bundled = (models.model_path(name) for name in models.names())
    known = (path for path in bundled if (read_record(path) or {}).get("fingerprint") == fingerprint)
    return [*stored, *known][:1]


def _counted(pieces: Path) -> Credits:
    """Credits and works of the training and validation pieces of a cell store."""
    sets: dict[tuple[str, str, str], list[int]] = {}
    works: dict[tuple[str, str], int] = {}
    for row in _rows(pieces, ("source", "licence", "attribution", "notes", "split", "composition")):
        if row["split"] != "test":
            count = sets.setdefault((row["source"], row["licence"], row["attribution"]), [0, 0])
            count[0] += 1
            count[1] += int(row["notes"])
            work = (row["source"], row["composition"])
            works[work] = works.get(work, 0) + 1
    return Credits(
        [Credit(*key, *count) for key, count in sorted(sets.items())],
        [Work(*key, count) for key, count in sorted(works.items())],
    )


def _read_credits(path: Path) -> list[Credit]:
    rows = _rows(path, [field.name for field in fields(Credit)])
    return [
        Credit(row["source"], row["licence"], row["attribution"], int(row["pieces"]), int(row["notes"]))
        for row in rows
    ]


def _read_works(path: Path) -> list[Work]:
    if not path.is_file():
        return []
    rows = _rows(path, [field.name for field in fields(Work)])
    return [Work(row["source"], row["work"], int(row["pieces"])) for row in rows]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table, whose columns of counts hold whole numbers.

    Raises:
        UserError: A column is missing, or a count is none.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in columns:
            value = row.get(name)
            if value is None or (name in ("pieces", "notes") and not value.isdecimal()):
                raise UserError(f"{path}: {name}={value!r} found, expected the table as it was written")
    return rows
