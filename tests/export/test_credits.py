"""Which music a model learned from, found through the records of what it was made from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pianolm import models
from pianolm.artifacts import write_record
from pianolm.errors import UserError
from pianolm.export.credits import Credit, Credits, Work, credits_of

COLUMNS = ("source", "licence", "attribution", "notes", "split", "composition")


def artifact(root: Path, stage: str, name: str, **upstream: str) -> Path:
    path = root / stage / name
    path.mkdir(parents=True)
    write_record(path, {"stage": stage, "fingerprint": name, "upstream": upstream})
    return path


def cells(root: Path, name: str, *rows: tuple[object, ...]) -> None:
    with (artifact(root, "prepare", name) / "pieces.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Fine-tuned on set a; its base model learned from sets a and b."""
    cells(
        tmp_path,
        "c1",
        ("a", "MIT", "Ann", 10, "train", "bach/air"),
        ("a", "MIT", "Ann", 5, "test", "bach/gigue"),
    )
    cells(
        tmp_path,
        "c2",
        ("a", "MIT", "Ann", 10, "train", "bach/air"),
        ("a", "MIT", "Ann", 7, "validation", "bach/air"),
        ("b", "CC0 1.0", "", 3, "train", "liszt/sonata"),
    )
    artifact(tmp_path, "tokenize", "t1", cells="c1")
    artifact(tmp_path, "tokenize", "t2", cells="c2", codebook="gone")
    artifact(tmp_path, "base", "b1", tokens="t2")
    return artifact(tmp_path, "finetune", "f1", tokens="t1", base="b1")


def test_sets_and_works_are_those_of_the_model_and_its_base_without_test_pieces(model: Path) -> None:
    assert credits_of(model, ()) == Credits(
        [Credit("a", "MIT", "Ann", 2, 17), Credit("b", "CC0 1.0", "", 1, 3)],
        [Work("a", "bach/air", 2), Work("b", "liszt/sonata", 1)],
    )


def test_a_model_elsewhere_finds_them_in_the_store(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "deep" / "copy"
    copy.mkdir(parents=True)
    (copy / "artifact.json").write_bytes((model / "artifact.json").read_bytes())
    assert credits_of(copy, ()) == Credits([], [])
    assert credits_of(copy, [tmp_path]) == credits_of(model, ())


def test_tables_that_travel_with_a_model_are_read_as_they_were_written(model: Path, tmp_path: Path) -> None:
    found = credits_of(model, ())
    copy = tmp_path / "copy"
    copy.mkdir()
    found.write(copy)
    assert credits_of(copy, ()) == found
    (copy / "CREDITS.csv").write_text("source,licence,attribution,pieces,notes\na,MIT,Ann,many,1\n")
    with pytest.raises(UserError, match=r"CREDITS.csv: pieces='many' found"):
        credits_of(copy, ())


def test_a_model_made_from_a_bundled_one_has_the_credits_of_that_one(tmp_path: Path) -> None:
    pop = models.model_path("pop")
    of_bundled, fingerprint = (
        credits_of(pop, ()),
        json.loads((pop / "artifact.json").read_text())["fingerprint"],
    )
    assert sum(row.pieces for row in of_bundled.sets) > 4000
    cells(tmp_path, "c1", ("folder", "unknown", "", 10, "train", "my/song"))
    artifact(tmp_path, "tokenize", "t1", cells="c1")
    own = artifact(tmp_path, "finetune", "f1", tokens="t1", base=fingerprint)
    assert set(credits_of(own, ()).sets) == {*of_bundled.sets, Credit("folder", "unknown", "", 1, 10)}
