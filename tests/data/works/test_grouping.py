"""Works, their splits, and corrections."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.data.sources import Record
from pianolm.data.works.grouping import (
    PieceWork,
    group_pieces,
    read_corrections,
    unknown_pieces,
    works_lines,
    write_works,
)
from pianolm.data.works.note_sketch import sketch_notes
from pianolm.errors import UserError
from tests.data.works.toys import music, rendition


def record(name: str, split: str, composer: str = "", seeded: bool = False, composition: str = "") -> Record:
    path = f"{name}.mid"
    composition = composition or f"set/{name}"
    return Record("set", path, Path(path), "auto", composition, split, composer=composer, seeded=seeded)


ORIGINAL, OTHER = sketch_notes(music(0)), sketch_notes(music(1))
AGAIN = sketch_notes(rendition(music(0), 5))


def test_test_wins_over_validation_over_train() -> None:
    records = [record("a", "train"), record("b", "validation"), record("c", "test"), record("d", "train")]
    a, b, c, d = group_pieces(records, [ORIGINAL, AGAIN, OTHER, OTHER], {})
    assert (a.work, b.work, c.work, d.work) == ("set/a", "set/a", "set/c", "set/c")
    assert (a.split, b.split, c.split, d.split) == ("validation", "validation", "test", "test")
    assert (a.found_by, b.found_by) == ("source", "notes")
    assert (a.moved, b.moved, d.moved) == (True, False, True)


def test_a_published_split_wins_over_a_drawn_one() -> None:
    records = [record("a", "test", seeded=True), record("b", "train")]
    assert {piece.split for piece in group_pieces(records, [ORIGINAL, AGAIN], {})} == {"train"}


def test_drawn_splits_stay_fair_however_many_pieces_a_work_has() -> None:
    # Were the strictest of ten draws taken, most works would be test.
    splits = ["train", "test", *["validation"] * 8]
    records = [record(str(i), split, seeded=True) for i, split in enumerate(splits)]
    pieces = group_pieces(records, [ORIGINAL] * 10, {})
    assert {piece.split for piece in pieces} == {"train"}


def test_the_ids_of_a_data_set_are_believed_and_names_with_a_composer_kept() -> None:
    records = [
        record("a", "train", composition="x/one"),
        record("b", "test", composition="x/one"),
        record("c", "train", composer="Chopin", composition="y/two"),
    ]
    a, b, c = group_pieces(records, [ORIGINAL, OTHER, AGAIN], {})
    assert {a.work, b.work, c.work} == {"y/two"}
    assert (a.found_by, b.found_by, c.found_by) == ("notes", "notes", "source")
    assert {a.split, b.split, c.split} == {"test"}


def test_a_file_that_cannot_be_used_takes_no_part() -> None:
    records = [record("a", "train", composition="x"), record("b", "test", composition="x")]
    assert [piece.split for piece in group_pieces(records, [ORIGINAL, None], {})] == ["train", "test"]


def test_the_user_corrects(tmp_path: Path) -> None:
    records = [record("a", "train"), record("b", "test"), record("c", "train")]
    path = tmp_path / "works.csv"
    path.write_text("piece,work,why\nset/b.mid,set/b,another piece\nset/c.mid,set/a,the same\n")
    a, b, c = group_pieces(records, [ORIGINAL, AGAIN, OTHER], read_corrections(str(path)))
    assert (a.work, b.work, c.work) == ("set/a", "set/b", "set/a")
    assert (a.split, b.split, c.split) == ("train", "test", "train")
    assert (a.found_by, b.found_by, c.found_by) == ("source", "user", "user")


def test_a_prepared_table_is_a_correction_that_changes_nothing(tmp_path: Path) -> None:
    records = [record("a", "train"), record("b", "test"), record("c", "train")]
    sketches = [ORIGINAL, AGAIN, OTHER]
    pieces = group_pieces(records, sketches, {})
    write_works(tmp_path / "works.csv", pieces)
    again = group_pieces(records, sketches, read_corrections(str(tmp_path / "works.csv")))
    assert [(p.piece, p.work, p.split) for p in again] == [(p.piece, p.work, p.split) for p in pieces]


def test_pieces_that_are_not_in_the_data_are_told() -> None:
    records = [record("a", "train"), record("b", "train")]
    assert unknown_pieces({"set/a.mid": "x"}, records) is None
    line = unknown_pieces({"set/a.mid": "x", "set/c.mid": "x"}, records)
    assert line == "data.works: 1 of 2 pieces are not in the data, the first one set/c.mid"
    with pytest.raises(UserError, match=r"1 of 1 pieces .* set/c.mid; expected ids as in the column piece"):
        unknown_pieces({"set/c.mid": "x"}, records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(.*expected a comma-separated table with the columns piece and work"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "no columns found; expected"),
        (b"path,work\na,b\n", "path, work found; expected"),
        (b"piece,work\na,\n", "a row without piece or work"),
        (b"piece,work\na\n", "a row without piece or work"),
        (b"piece,work\na,b\na,c\n", "two works for a; expected one row a piece"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "works.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_corrections(str(path))


def test_the_line_says_what_was_joined_and_moved() -> None:
    pieces = [
        PieceWork("a", "x", "test", "source", "test"),
        PieceWork("b", "x", "test", "notes", "train"),
        PieceWork("c", "y", "train", "source", "train"),
    ]
    (line,) = works_lines(pieces)
    assert line == (
        "works: 1 under several names, 1 pieces joined by their notes; 1 pieces moved to the split of their work "
        "(train to test 1); works.csv lists them"
    )
    assert works_lines(pieces[2:]) == []
