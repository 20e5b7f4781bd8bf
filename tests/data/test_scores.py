"""Data source `scores`, alone and in a mix, on tiny sets in its published layout."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pianolm.data.reading import ReadPiece, read_record
from pianolm.data.sources import collect
from pianolm.errors import UserError
from pianolm.run import CONFIG_DIR

Writer = Callable[..., Path]
COLUMNS = [
    "id",
    "midi",
    "annotations",
    "composer",
    "title",
    "work_id",
    "kind",
    "licence",
    "attribution",
    "asap_work",
]


def row(name: str, **changes: str) -> dict[str, str]:
    files = {"midi": f"{name}.mid", "annotations": f"{name}_annotations.txt"}
    work = {"composer": "Szymanowska, Maria", "title": f"Nocturne {name}", "work_id": name}
    rights = {"licence": "CC BY 4.0", "attribution": f"typeset by {name}", "asap_work": ""}
    return {"id": name, **files, **work, "kind": "solo", **rights, **changes}


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def scores(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> Path:
    """Two sets; of four pieces one stands in ASAP, one is an étude, one has no file."""
    root = tmp_path / "scores"
    sets = {
        "one": [row("a"), row("etude", composer="Chopin, Fryderyk", title="Etude in E major op. 10, no. 3")],
        "two": [row("b", asap_work="Bach/Fugue/bwv_846", licence="Public Domain"), row("lost")],
    }
    for name, rows in sets.items():
        write_table(root / name, rows)
        for one in rows:
            if one["id"] != "lost":
                midi_file(root / name / one["midi"])
                beat_file(root / name / one["annotations"])
    in_root = [
        {**one, "midi": f"{name}/{one['midi']}", "annotations": f"{name}/{one['annotations']}"}
        for name, rows in sets.items()
        for one in rows
    ]
    write_table(root, in_root)
    return root


def config(root: Path | None, **more: Any) -> dict[str, Any]:
    return {"source": "scores", "root": None if root is None else str(root), "seed": 0, **more}


def test_a_piece_has_its_work_licence_and_attribution(scores: Path) -> None:
    collection = collect(config(scores), scores)
    first = collection.records[0]
    assert (first.id, first.composition, first.kind) == ("scores/one/a.mid", "scores/a", "score")
    assert (first.licence, first.attribution) == ("CC BY 4.0", "typeset by a")
    read = read_record(first)
    assert isinstance(read, ReadPiece)
    assert (read.row.flat, read.row.attribution) == (True, "typeset by a")
    assert (read.downbeat == 1).sum() == 5, "every fourth of 17 beats"


def test_missing_files_are_rejected_and_works_of_asap_left_out(scores: Path) -> None:
    collection = collect(config(scores), scores)
    assert [record.path for record in collection.records] == ["one/a.mid", "one/etude.mid"]
    assert collection.rejects == (("two/lost.mid", "listed in metadata.csv, but there is no such file"),)
    assert [(e.path, e.why) for e in collection.excluded] == [("two/b.mid", "is ASAP's Bach/Fugue/bwv_846")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"annotations": "gone.txt"}, "no annotations: gone.txt"),
        ({"annotations": ""}, "no annotations: none listed"),
        ({"licence": ""}, "no licence in metadata.csv"),
        ({"work_id": ""}, "no work_id in metadata.csv"),
    ],
)
def test_a_row_with_a_gap_is_rejected(scores: Path, change: dict[str, str], reason: str) -> None:
    write_table(scores / "one", [row("a", **change)])
    assert collect(config(scores / "one"), scores).rejects == (("a.mid", reason),)


def test_the_root_may_be_one_set_or_sets_without_a_common_table(scores: Path) -> None:
    one = collect(config(scores / "one"), scores)
    assert [record.path for record in one.records] == ["a.mid", "etude.mid"]
    whole = collect(config(scores), scores)
    (scores / "metadata.csv").unlink()
    assert collect(config(scores), scores).records == whole.records


def test_readings_of_one_work_are_in_one_split(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> None:
    rows = [row(f"p{number}", work_id=f"w{number // 2}") for number in range(20)]
    for one in rows:
        midi_file(tmp_path / one["midi"])
        beat_file(tmp_path / one["annotations"])
    write_table(tmp_path, rows)
    records = collect(config(tmp_path, validation_fraction=0.3, test_fraction=0.2), tmp_path).records
    splits = {record.composition: record.split for record in records}
    assert [splits[record.composition] for record in records] == [record.split for record in records]
    assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 5 + ["validation"] * 3


def test_listed_works_are_left_out(scores: Path, tmp_path: Path) -> None:
    table = tmp_path / "asap" / "metadata.csv"
    table.parent.mkdir()
    table.write_text("composer,title\nChopin,Etudes_op_10_3\n")
    for entry, listed in (
        (str(table), "Chopin: Etudes_op_10_3 of asap/metadata.csv"),
        ("Chopin: op. 10", "Chopin: op. 10 of data.exclude"),
    ):
        collection = collect(config(scores, exclude=[entry]), scores)
        assert [record.path for record in collection.records] == ["one/a.mid"]
        left_out = collection.excluded[-1]
        assert (left_out.path, left_out.why) == ("one/etude.mid", f"may be {listed}")
        assert left_out.work == "Chopin, Fryderyk: Etude in E major op. 10, no. 3"


def test_a_licence_that_is_not_allowed_is_one_sentence_with_the_file(scores: Path) -> None:
    allowed = ["CC-BY-4.0", "CC0 1.0"]
    assert len(collect(config(scores, licences=allowed), scores).records) == 2
    with pytest.raises(UserError) as error:
        collect(config(scores, licences=["MIT"]), scores)
    assert str(error.value).startswith(
        "scores/one/a.mid: licence CC-BY-4.0 found, expected one of data.licences"
    )


def test_in_a_mix_the_test_songs_of_pop909_stay_out_of_training(scores: Path, tmp_path: Path) -> None:
    for number in ("720", "800", "801"):
        (tmp_path / "pop" / number).mkdir(parents=True)
    parts = {"scores": str(scores), "pop909": str(tmp_path / "pop"), "asap": None}
    data = {**config(None, parts=parts, validation_fraction=0, test_fraction=0), "source": "mix"}
    mixed = collect({**data, "exclude": ["Chopin: op. 10"], "licences": ["MIT", "CC-BY-4.0"]}, tmp_path)
    splits = [(record.id, record.split, record.licence) for record in mixed.records]
    assert splits == [
        ("scores/one/a.mid", "train", "CC BY 4.0"),
        ("pop909/720/720.mid", "train", "MIT"),
        ("pop909/800/800.mid", "validation", "MIT"),
        ("pop909/801/801.mid", "test", "MIT"),
    ]
    assert [e.path for e in mixed.excluded] == ["scores/two/b.mid", "scores/one/etude.mid"]
    with pytest.raises(UserError, match=r"^pop909/720/720\.mid: licence MIT found"):
        collect({**data, "licences": ["CC-BY-4.0"]}, tmp_path)


def test_the_recipe_of_the_bundled_model_leaves_out_what_the_tables_list(shared_data: Path) -> None:
    box = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "experiment" / "box.yaml").data)
    assert isinstance(box, dict)
    tables = [str(shared_data / "asap/metadata.csv"), str(shared_data / "acpas/distinct_pieces.csv")]
    root = shared_data / "scores"
    listed, by_box = (
        {piece.path for piece in collect(config(root, **options), root).excluded}
        for options in ({"exclude": tables}, box)
    )
    assert len(listed) > 100
    assert listed <= by_box
    assert len(by_box) < 200
