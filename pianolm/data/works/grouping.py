"""The works of a data set and their splits: no work is in two splits, in one data set or in a mix.

Pieces are of one work if the data sets give them one id, or if they are the same music by their notes. Where published
splits disagree, test wins over validation over train; they win over splits drawn by `data.seed`.

A user corrects with `data.works=PATH`, a table with the columns `piece` and `work`, such as a prepared `works.csv` with
some rows changed. A piece in it is of the work named there, whatever its notes are like.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pianolm.csv_file import write_csv
from pianolm.data.cell_store import SPLITS
from pianolm.data.file_progress import with_progress
from pianolm.data.sources.base import Record
from pianolm.data.works.catalogue import Work
from pianolm.data.works.finding import Groups, WorkFinder
from pianolm.data.works.note_sketch import NoteSketch
from pianolm.errors import UserError

_COLUMNS = ("piece", "work", "split", "found_by", "own_split")


@dataclass(frozen=True)
class PieceWork:
    """The work and split of one piece.

    Attributes:
        piece: Id of the piece.
        work: Id of its work: the id that data sets give it, of several the first in alphabetical order.
        split: Split of the work.
        found_by: `source` where this is the id that the data set gives the piece, `notes` where pieces with other ids
            were found to be the same music, `user` where `data.works` says so.
        own_split: Split that the piece had by itself.
    """

    piece: str
    work: str
    split: str
    found_by: str
    own_split: str

    @property
    def moved(self) -> bool:
        """Whether the piece is in another split because of its work."""
        return self.split != self.own_split


def read_corrections(path: str | None) -> dict[str, str]:
    """The work of each piece in the table `data.works`, none without a path.

    Raises:
        UserError: The file cannot be read, lacks a column, has an empty field, or two works for one piece.
    """
    if path is None:
        return {}
    expected = "a comma-separated table with the columns piece and work, such as a prepared works.csv"
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.works={path}: cannot be read ({error}); expected {expected}") from error
    if not {"piece", "work"} <= set(columns):
        found = ", ".join(columns) or "no columns"
        raise UserError(f"data.works={path}: {found} found; expected {expected}")
    works: dict[str, str] = {}
    for row in rows:
        piece, work = row["piece"], row["work"]
        if not piece or not work:
            raise UserError(f"data.works={path}: a row without piece or work; expected both in each row")
        if works.setdefault(piece, work) != work:
            raise UserError(f"data.works={path}: two works for {piece}; expected one row a piece")
    return works


def unknown_pieces(corrections: Mapping[str, str], records: Iterable[Record]) -> str | None:
    """A line about pieces of `data.works` that are not in the data, None where there are none.

    Raises:
        UserError: None of them is in the data.
    """
    unknown = sorted(corrections.keys() - {record.id for record in records})
    if not unknown:
        return None
    line = f"{len(unknown)} of {len(corrections)} pieces are not in the data, the first one {unknown[0]}"
    if len(unknown) == len(corrections):
        raise UserError(f"data.works: {line}; expected ids as in the column piece of a prepared works.csv")
    return f"data.works: {line}"


def group_pieces(
    records: Sequence[Record], sketches: Sequence[NoteSketch | None], corrections: Mapping[str, str]
) -> list[PieceWork]:
    """The work and split of each piece.

    Args:
        records: The pieces.
        sketches: Sketch of each piece's notes, None for a file that cannot be used: it takes no part.
        corrections: Works of pieces by their ids, as the user says.
    """
    used = {i: sketch for i, sketch in enumerate(sketches) if sketch is not None}
    ids = [corrections.get(record.id, record.composition) for record in records]
    groups = Groups(len(records))
    first: dict[str, int] = {}
    for i in used:
        groups.join(first.setdefault(ids[i], i), i)
    finder = WorkFinder(
        [Work(record.composer, record.title) if record.composer else None for record in records], groups
    )
    compared = [i for i in used if records[i].id not in corrections]
    for i in with_progress(compared, len(compared), "prepare: compares the notes of"):
        finder.add(i, used[i])
    members: dict[int, list[int]] = defaultdict(list)
    for i in used:
        members[groups.find(i)].append(i)
    found = [
        PieceWork(record.id, work, record.split, "source", record.split)
        for record, work in zip(records, ids, strict=True)
    ]
    for group in members.values():
        work, split = _name(group, records, ids, corrections), _split([records[i] for i in group])
        for i in group:
            by = "user" if records[i].id in corrections else "source" if ids[i] == work else "notes"
            found[i] = PieceWork(records[i].id, work, split, by, records[i].split)
    return found


def _name(
    group: Sequence[int], records: Sequence[Record], ids: Sequence[str], corrections: Mapping[str, str]
) -> str:
    """The work that the user names, else the first id of pieces with a composer, else the first id."""
    named = {corrections[records[i].id] for i in group if records[i].id in corrections}
    titled = {ids[i] for i in group if records[i].composer}
    return min(named or titled or {ids[i] for i in group})


def _split(records: Sequence[Record]) -> str:
    """The split of a work. If all were drawn by chance, that of the first id is as good a draw as any."""
    published = [record.split for record in records if not record.seeded]
    if published:
        return max(published, key=SPLITS.index)
    return min(records, key=lambda record: record.composition).split


def write_works(path: Path, works: Iterable[PieceWork]) -> None:
    """Writes `works.csv`: a row a piece with the attributes of `PieceWork`."""
    write_csv(path, _COLUMNS, ([getattr(work, column) for column in _COLUMNS] for work in works))


def works_lines(works: Sequence[PieceWork]) -> list[str]:
    """What was found, in a line: works under several ids, and pieces in another split than their own."""
    joined = [work for work in works if work.found_by == "notes"]
    moved = Counter((work.own_split, work.split) for work in works if work.moved)
    if not joined and not moved:
        return []
    count = len({work.work for work in joined})
    ways = ", ".join(
        f"{own} to {split} {moved[own, split]}" for own in SPLITS for split in SPLITS if moved[own, split]
    )
    return [
        f"works: {count} under several names, {len(joined)} pieces joined by their notes; {moved.total()} pieces moved "
        f"to the split of their work{f' ({ways})' if ways else ''}; works.csv lists them"
    ]
