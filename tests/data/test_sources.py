"""Data sources on tiny folders in each data set's published layout."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.data.cell_store import SPLITS
from pianolm.data.sources import SOURCES, Record, collect, settle_splits
from pianolm.data.sources.base import composition_id, seeded_splits
from pianolm.errors import UserError
from pianolm.music.piece import Piece

Writer = Callable[..., Path]

ASAP_HEADER = (
    "composer,title,folder,midi_score,midi_performance,performance_annotations,midi_score_annotations\n"
)
ACPAS_HEADER = (
    "performance_id,piece_id,folder,performance_MIDI,MIDI_score,performance_annotation,score_annotation\n"
)
ACPAS_PIECES = (
    "id,composer,split,ASAP_title,CPM_title\n"
    "1,Bach,test,Fugue_bwv_1,Well_Tempered_1\n2,Bach,validation,,Only_CPM\n3,Liszt,train,Étude No.1,\n"
)


def config(source: str, root: Path | None, **more: Any) -> dict[str, Any]:
    return {"source": source, "root": None if root is None else str(root), "seed": 0, **more}


def asap_row(composer: str, title: str, performance: str) -> str:
    folder = f"{composer}/{title}"
    names = (
        f"{folder}/midi_score.mid",
        f"{folder}/{performance}.mid",
        f"{folder}/{performance}_annotations.txt",
    )
    return ",".join([composer, title, folder, *names, f"{folder}/midi_score_annotations.txt"]) + "\n"


def write_asap(root: Path, pieces: int = 10, splits: str | None = None) -> Path:
    rows = [asap_row("Bach", f"Fugue_{i}", player) for i in range(pieces) for player in ("Ann", "Bob")]
    (root / "metadata.csv").write_text(ASAP_HEADER + "".join(rows))
    if splits is not None:
        (root / "splits.csv").write_text("midi_performance,split\n" + splits)
    return root


def by_composition(records: tuple[Record, ...]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for record in records:
        splits.setdefault(record.composition, set()).add(record.split)
    return splits


def test_asap_lists_performances_and_each_score_once(tmp_path: Path) -> None:
    collection = collect(config("asap", write_asap(tmp_path)), tmp_path)
    kinds = [record.kind for record in collection.records]
    assert (kinds.count("performance"), kinds.count("score")) == (20, 10)
    first = collection.records[0]
    assert first.id == "asap/Bach/Fugue_0/Ann.mid"
    assert first.midi_path == tmp_path / "Bach/Fugue_0/Ann.mid"
    assert first.beats == tmp_path / "Bach/Fugue_0/Ann_annotations.txt"
    assert first.composition == "bach/fugue-0"
    assert first.licence == "CC BY-NC-SA 4.0"
    assert collection.records[1].beats == tmp_path / "Bach/Fugue_0/midi_score_annotations.txt"


def test_asap_without_splits_is_split_by_composition(tmp_path: Path) -> None:
    fractions = {"validation_fraction": 0.2, "test_fraction": 0.1}
    records = collect(config("asap", write_asap(tmp_path), **fractions), tmp_path).records
    splits = by_composition(records)
    assert all(len(found) == 1 for found in splits.values())
    assert sorted(found.pop() for found in splits.values()) == ["test"] + ["train"] * 7 + ["validation"] * 2
    other = collect(config("asap", tmp_path, **fractions) | {"seed": 1}, tmp_path).records
    assert [r.split for r in other] != [r.split for r in records]


def test_asap_follows_splits_csv_and_rejects_what_it_lacks(tmp_path: Path) -> None:
    table = "Bach/Fugue_0/Ann.mid,train\nBach/Fugue_0/Bob.mid,test\nBach/Fugue_1/Ann.mid,val\n"
    collection = collect(config("asap", write_asap(tmp_path, 3, table)), tmp_path)
    assert by_composition(collection.records) == {"bach/fugue-0": {"test"}, "bach/fugue-1": {"validation"}}
    paths, reasons = zip(*collection.rejects, strict=True)
    assert paths == tuple(f"Bach/Fugue_2/{name}.mid" for name in ("Ann", "midi_score", "Bob"))
    assert set(reasons) == {"splits.csv lists no performance of this composition"}
    (tmp_path / "splits.csv").write_text("midi_performance,split\nBach/Fugue_0/Ann.mid,holdout\n")
    with pytest.raises(UserError, match="'holdout' found, expected one of train, validation, test"):
        collect(config("asap", tmp_path), tmp_path)


def test_asap_names_a_row_without_annotation(tmp_path: Path) -> None:
    row = "Bach,Fugue,f,f/score.mid,f/a.mid,,f/score.txt\n"
    (tmp_path / "metadata.csv").write_text(ASAP_HEADER + row)
    collection = collect(config("asap", tmp_path), tmp_path)
    assert collection.rejects == (("f/a.mid", "no performance_annotations in metadata.csv"),)
    assert [record.path for record in collection.records] == ["f/score.mid"]


def test_acpas_takes_both_tables_and_the_published_split(tmp_path: Path) -> None:
    (tmp_path / "distinct_pieces.csv").write_text(ACPAS_PIECES, "utf-8")
    synthetic = "S_1,1,s,S_1.mid,S_1.mid,S_1.tsv,S_1.tsv\nS_2,2,s,S_2.mid,S_2.mid,S_2.tsv,S_2.tsv\n"
    real = "R_1,3,r,R_1.mid,score.mid,R_1.tsv,score.tsv\nR_2,9,r,R_2.mid,,R_2.tsv,\n"
    (tmp_path / "metadata_S.csv").write_text(ACPAS_HEADER + synthetic)
    (tmp_path / "metadata_R.csv").write_text(ACPAS_HEADER + real)
    collection = collect(config("acpas", tmp_path), tmp_path)
    assert {(r.path, r.composition, r.split, r.kind) for r in collection.records} == {
        ("s/S_1.mid", "bach/fugue-bwv-1", "test", "performance"),
        ("s/S_2.mid", "bach/only-cpm", "validation", "performance"),
        ("r/R_1.mid", "liszt/etude-no-1", "train", "performance"),
        ("r/score.mid", "liszt/etude-no-1", "train", "score"),
    }
    assert collection.rejects == (("r/R_2.mid", "distinct_pieces.csv has no piece 9"),)
    assert {path.name for path in collection.tables} == {
        "distinct_pieces.csv",
        "metadata_S.csv",
        "metadata_R.csv",
    }


def test_one_piece_has_one_id_in_asap_and_acpas(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(ASAP_HEADER + asap_row("Bach", "Fugue_bwv_1", "Ann"))
    (tmp_path / "distinct_pieces.csv").write_text(ACPAS_PIECES, "utf-8")
    row = "S_1,1,s,S_1.mid,S_1.mid,S_1.tsv,S_1.tsv\n"
    (tmp_path / "metadata_S.csv").write_text(ACPAS_HEADER + row)
    asap = collect(config("asap", tmp_path, validation_fraction=0, test_fraction=0), tmp_path).records
    acpas = collect(config("acpas", tmp_path), tmp_path).records
    assert {record.split for record in asap} == {"train"}
    settled = settle_splits([*asap, *acpas])
    assert {record.composition for record in settled} == {"bach/fugue-bwv-1"}
    assert {record.split for record in settled} == {"test"}


def test_a_mix_has_the_records_of_its_parts_with_one_split_per_composition(
    tmp_path: Path, midi_file: Writer
) -> None:
    for name in ("asap", "acpas", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "asap/metadata.csv").write_text(ASAP_HEADER + asap_row("Bach", "Fugue_bwv_1", "Ann"))
    (tmp_path / "acpas/distinct_pieces.csv").write_text(ACPAS_PIECES, "utf-8")
    row = "S_1,1,s,S_1.mid,S_1.mid,S_1.tsv,S_1.tsv\nS_2,9,s,S_2.mid,S_2.mid,S_2.tsv,S_2.tsv\n"
    (tmp_path / "acpas/metadata_S.csv").write_text(ACPAS_HEADER + row)
    midi_file(tmp_path / "own/a.mid")
    parts = {"asap": str(tmp_path / "asap"), "acpas": str(tmp_path / "acpas"), "pop909": None}
    parts["folder"] = str(tmp_path / "own")
    mixed = collect(
        config("mix", None, parts=parts, validation_fraction=0, test_fraction=0), tmp_path / "cache"
    )
    assert [(r.source, r.split) for r in mixed.records] == [
        ("asap", "test"),
        ("asap", "test"),
        ("acpas", "test"),
        ("folder", "train"),
    ]
    assert mixed.rejects == (("acpas/s/S_2.mid", "distinct_pieces.csv has no piece 9"),)
    assert mixed.relative(mixed.tables[0]) == "asap/metadata.csv"
    assert mixed.relative(mixed.records[-1].midi_path) == "folder/a.mid"
    with pytest.raises(UserError, match=r"data=mix has no part; give two or more of data\.parts\.asap=PATH"):
        collect(config("mix", None, parts={"asap": None}), tmp_path)


def test_an_error_of_a_part_names_its_own_option(tmp_path: Path, midi_file: Writer) -> None:
    midi_file(tmp_path / "own/a.mid")
    for folder, found in (("own", "no metadata.csv"), ("none", "no such directory")):
        parts = {"folder": str(tmp_path / "own"), "asap": str(tmp_path / folder)}
        with pytest.raises(UserError, match=rf"^data\.parts\.asap={tmp_path}/{folder}: {found}"):
            collect(config("mix", None, parts=parts), tmp_path / "cache")


@pytest.mark.parametrize("inner", [".", "POP909"])
def test_pop909_is_split_by_number(tmp_path: Path, inner: str) -> None:
    for number in ("001", "720", "721", "800", "801", "909"):
        (tmp_path / inner / number).mkdir(parents=True)
    (tmp_path / inner / "notes").mkdir()
    collection = collect(config("pop909", tmp_path), tmp_path)
    assert [r.split for r in collection.records] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    first = collection.records[0]
    assert first.id == "pop909/001/001.mid", "the same for the POP909 folder and its parent as root"
    assert first.beats == first.midi_path.with_name("beat_midi.txt")


def test_folder_finds_midi_at_any_depth_and_keeps_copies_together(tmp_path: Path, midi_file: Writer) -> None:
    paths = [midi_file(tmp_path / name, seed) for seed, name in enumerate(["a.mid", "b/c.MID", "b/d/e.midi"])]
    for number in range(9):
        shutil.copy(paths[0], tmp_path / f"copy{number}.mid")
    (tmp_path / "._a.mid").write_bytes(b"debris")
    (tmp_path / "b" / "readme.txt").write_text("no music")
    data = config("folder", tmp_path, validation_fraction=0.4, test_fraction=0.3, beats="auto")
    records = collect(data, tmp_path).records
    assert sorted(r.path for r in records)[:4] == ["a.mid", "b/c.MID", "b/d/e.midi", "copy0.mid"]
    assert len(records) == 12
    splits = by_composition(records)
    assert set(splits) == {"folder/a", "folder/b/c", "folder/b/d/e"}
    assert sorted(split for found in splits.values() for split in found) == ["test", "train", "validation"]
    assert {record.beats for record in records} == {"auto"}


@pytest.mark.parametrize("kind", ["performance", "score"])
def test_a_folder_holds_what_its_option_says(kind: str, tmp_path: Path, midi_file: Writer) -> None:
    midi_file(tmp_path / "a.mid")
    records = collect(config("folder", tmp_path, kind=kind, licence="CC0 1.0"), tmp_path).records
    assert [(record.kind, record.licence) for record in records] == [(kind, "CC0 1.0")]


@pytest.mark.parametrize("source", ["asap", "pop909"])
def test_the_tempo_map_can_replace_annotations(source: str, tmp_path: Path) -> None:
    write_asap(tmp_path)
    (tmp_path / "001").mkdir()
    records = collect(config(source, tmp_path, beats="tempo_map"), tmp_path).records
    assert {record.beats for record in records} == {"tempo_map"}


def test_demo_is_the_same_every_time_and_holds_scores(tmp_path: Path) -> None:
    data = {"source": "demo", "pieces": 7, "seed": 3}
    first, again = (collect(data, tmp_path / name) for name in ("first", "again"))
    assert [(r.id, r.split, r.kind) for r in first.records] == [
        (r.id, r.split, r.kind) for r in again.records
    ]
    assert [r.kind for r in first.records] == ["performance"] * 5 + ["score", "performance"]
    assert {record.split for record in first.records} == set(SPLITS)
    for one, other in zip(first.records, again.records, strict=True):
        assert one.midi_path.read_bytes() == other.midi_path.read_bytes()
    other_seed = collect({**data, "seed": 4}, tmp_path / "other")
    assert {r.id for r in other_seed.records} != {r.id for r in first.records}


def test_demo_is_read_as_it_was_composed(tmp_path: Path) -> None:
    from pianolm.data.sources.demo.composer import compose
    from pianolm.music.notes import make_notes

    record = collect({"source": "demo", "pieces": 1, "seed": 5}, tmp_path).records[0]
    piece = Piece.from_midi(record.midi_path, record.beats)
    made = compose(5, 0)
    notes = make_notes(made.onset_sec, made.offset_sec, made.pitch, made.velocity)
    expected = Piece.from_notes(notes, made.beats_sec)
    assert piece.n_beats == expected.n_beats
    assert piece.downbeats_sec is not None
    assert piece.downbeats_sec.size == made.downbeat.sum()
    ours, theirs = piece.frame_notes, expected.frame_notes
    assert (ours[["pitch", "velocity"]] == theirs[["pitch", "velocity"]]).all()
    # A note between two frames may round to either, as the file's ticks are a tenth of a frame.
    assert abs(ours["onset"] - theirs["onset"]).max() <= 1
    assert (ours["onset"] == theirs["onset"]).mean() > 0.8


WRONG = {
    "no such source": (
        {"source": "maestros"},
        "data.source=maestros found, expected one of acpas, aria, asap, demo, folder, maestro, mix, pop909, "
        "scores",
    ),
    "no source": ({}, "data.source=None found"),
    "no pieces": ({"source": "demo", "pieces": 0}, "data.pieces=0"),
    **{
        f"{name} without root": ({"source": name}, "data.root is not set")
        for name in SOURCES
        if name not in ("demo", "mix")
    },
    **{
        f"{name} elsewhere": (
            {"source": name, "root": "/no/such/place"},
            "data.root=/no/such/place: no such directory",
        )
        for name in SOURCES
        if name not in ("demo", "mix")
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_told_in_one_sentence(name: str, tmp_path: Path) -> None:
    data, found = WRONG[name]
    with pytest.raises(UserError) as error:
        collect(data, tmp_path)
    assert found in str(error.value)
    assert "\n" not in str(error.value)


PUBLISHED = {
    "asap": "published at github.com/CPJKU/asap-dataset under CC BY-NC-SA 4.0",
    "acpas": "published at cheriell.github.io/research/ACPAS_dataset for study and research only",
    "aria": "published at huggingface.co/datasets/loubb/aria-midi under CC BY-NC-SA 4.0",
    "maestro": "published at magenta.tensorflow.org/datasets/maestro under CC BY-NC-SA 4.0",
    "pop909": "published at github.com/music-x-lab/POP909-Dataset under MIT",
}


@pytest.mark.parametrize("source", PUBLISHED)
@pytest.mark.parametrize("root", [None, "/no/such/place"])
def test_a_missing_root_says_where_the_data_set_is_published(source: str, root: str | None) -> None:
    with pytest.raises(UserError, match=re.escape(PUBLISHED[source])):
        collect({"source": source, "root": root}, Path("unused"))


@pytest.mark.parametrize(
    ("source", "missing", "expected"),
    [
        ("asap", "no metadata.csv", "the ASAP folder (the one with metadata.csv in it)"),
        ("acpas", "no distinct_pieces.csv", "the ACPAS folder"),
        ("pop909", "no song folders", "the POP909 folder"),
        ("scores", "no metadata.csv", "the folder of scores or one of its sets"),
        ("folder", "no MIDI files", "a directory with .mid or .midi files at any depth"),
    ],
)
def test_an_empty_folder_is_one_sentence(source: str, missing: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        collect(config(source, tmp_path), tmp_path)
    assert str(error.value).startswith(f"data.root={tmp_path}: {missing}")
    assert f"expected {expected}" in str(error.value)


def test_a_table_of_another_kind_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("canonical_composer,canonical_title,split\nBach,x,train\n")
    with pytest.raises(UserError, match="no column composer, title, midi_performance"):
        collect(config("asap", tmp_path), tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a comma-separated text file"):
        collect(config("asap", tmp_path), tmp_path)


def test_a_beat_choice_that_does_not_exist_is_one_sentence(tmp_path: Path, midi_file: Writer) -> None:
    midi_file(tmp_path / "a.mid")
    with pytest.raises(
        UserError, match=r"data\.beats=clicks found, expected one of auto, file, tempo_map, track"
    ):
        collect(config("folder", tmp_path, beats="clicks"), tmp_path)


@given(
    st.sets(st.text("abcdef/", min_size=1), max_size=40),
    st.floats(0, 0.5),
    st.floats(0, 0.49),
    st.integers(0, 3),
    st.randoms(),
)
def test_seeded_splits_depend_on_the_set_alone(
    names: set[str], validation: float, test: float, seed: int, random: Any
) -> None:
    data = {"seed": seed, "validation_fraction": validation, "test_fraction": test}
    shuffled = sorted(names)
    random.shuffle(shuffled)
    splits = seeded_splits(shuffled, data)
    assert splits == seeded_splits(sorted(names), data)
    assert set(splits) == names
    counts = {split: list(splits.values()).count(split) for split in SPLITS}
    if names:
        assert counts["train"] >= 1
    if len(names) >= 3:
        assert counts["validation"] > 0 or validation == 0
        assert counts["test"] > 0 or test == 0 or counts["train"] == 1
    if len(names) == 40:
        assert abs(counts["validation"] - 40 * validation) <= 1


@pytest.mark.parametrize(
    "fractions", [(-0.1, 0.1), (1.0, 0.0), (0.6, 0.4)], ids=["negative", "all of it", "nothing to train on"]
)
def test_fractions_out_of_range_are_one_sentence(fractions: tuple[float, float]) -> None:
    validation, test = fractions
    with pytest.raises(UserError, match=r"^data\.validation_fraction"):
        seeded_splits(["a"], {"validation_fraction": validation, "test_fraction": test})


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(SPLITS)), max_size=20))
def test_a_composition_never_straddles_a_split(rows: list[tuple[str, str]]) -> None:
    records = [Record("s", str(i), Path(str(i)), "auto", name, split) for i, (name, split) in enumerate(rows)]
    settled = settle_splits(records)
    assert [record.path for record in settled] == [record.path for record in records]
    for name in {name for name, _ in rows}:
        found = {record.split for record in settled if record.composition == name}
        published = {split for other, split in rows if other == name}
        assert found == {
            "test" if "test" in published else "validation" if "validation" in published else "train"
        }


@pytest.mark.parametrize(
    ("composer", "title", "expected"),
    [
        ("Bach", "Fugue_bwv_846", "bach/fugue-bwv-846"),
        ("Dvořák", "Valse  No.1", "dvorak/valse-no-1"),
        ("Beethoven", "Sonata_No.14_C#_minor", "beethoven/sonata-no-14-c#-minor"),
    ],
)
def test_composition_ids_are_normalised(composer: str, title: str, expected: str) -> None:
    assert composition_id(composer, title) == expected


def test_real_data_sets_agree_on_splits(shared_data: Path) -> None:
    records = [
        record
        for name in ("asap", "acpas", "pop909")
        for record in collect(config(name, shared_data / name), shared_data).records
    ]
    assert len(records) > 2000
    assert settle_splits(records) == records, "ASAP and ACPAS publish the same splits"
    asap = {record.composition for record in records if record.source == "asap"}
    acpas = {record.composition for record in records if record.source == "acpas"}
    assert len(asap & acpas) > 20, "compositions in both data sets have one id"
