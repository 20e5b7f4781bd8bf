"""Stage `prepare`: from files to the cell store."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pianolm.artifacts import licences_of
from pianolm.data import kept_results, reading
from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.music.midi import write_midi
from pianolm.music.piece import Piece
from pianolm.run import execute
from pianolm.stage import Metrics, StageContext
from pianolm.stages import prepare
from tests.data.test_maestro import write_maestro
from tests.data.works.toys import music as composed_notes
from tests.data.works.toys import rendition
from tests.music.toy_tracker import bass_tracker, random_network
from tests.tiny import composed, tiny

Writer = Callable[..., Path]

KEYS = {
    *(
        "files",
        "rejected",
        "excluded",
        "estimated",
        "repaired",
        "pieces_train",
        "pieces_validation",
        "pieces_test",
    ),
    *("notes", "cells", "beats", "flat_pieces", "works", "moved_pieces", "files_per_second", "peak_rss_mb"),
}


def run(out: Path, workers: int = 1, **data: Any) -> Metrics:
    """Runs the stage into a directory of its own."""
    out.mkdir(parents=True)
    config = {"data": {"seed": 0, **data}, "compute": {"workers": workers}}
    return prepare.run(StageContext(config, {}, out, out.with_name(f"{out.name} work"), out, "prepare"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.fixture
def music(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> Path:
    """A folder of eight good files, half with beat files beside, and four that cannot be used."""
    root = tmp_path / "music"
    for number in range(8):
        midi_file(root / f"{number}.mid", seed=number, velocity=70 if number == 3 else None)
    for number, ending in enumerate(("_annotations.txt", ".beats.txt", ".tsv", "_annotations.txt")):
        beat_file(root / f"{number}{ending}", beat_sec=0.5)
    (root / "damaged.mid").write_bytes(b"MThd, but not really")
    midi_file(root / "sub" / "wrong.mid", seed=9)
    (root / "sub" / "wrong.tsv").write_text("C:maj\t0.0\n")
    midi_file(root / "one beat.mid", seed=10)
    (root / "one beat.beats.txt").write_text("0.5\n")
    midi_file(root / "far.mid", seed=11)
    (root / "far.beats.txt").write_text("0\n1000000\n")
    return root


def test_the_demo_becomes_a_store(tmp_path: Path) -> None:
    metrics = run(tmp_path / "out", source="demo", pieces=12)
    store = CellStore.open(tmp_path / "out")
    assert set(metrics) == KEYS
    assert (metrics["files"], metrics["rejected"], metrics["flat_pieces"]) == (12, 0, 2)
    assert [metrics[f"pieces_{split}"] for split in ("train", "validation", "test")] == [10, 1, 1]
    for key in ("notes", "cells", "beats"):
        assert metrics[key] == sum(getattr(row, key) for row in store.pieces)
    for index, row in enumerate(store.pieces):
        path = tmp_path / "out" / "midi" / row.path
        piece = Piece.from_midi(path)
        np.testing.assert_array_equal(store.cells(index).sustain, piece.cells.sustain)
        np.testing.assert_array_equal(store.cells(index).segment_velocity, piece.cells.segment_velocity)
        np.testing.assert_array_equal(store.beats_sec(index), piece.beats_sec)
        assert row.flat == (row.kind == "score") == path.stem.endswith("_score")
        downbeats = store.beats_sec(index)[store.downbeat(index) == 1]
        np.testing.assert_allclose(downbeats, piece.downbeats_sec)


def test_rejected_files_are_listed_and_the_rest_is_kept(tmp_path: Path, music: Path) -> None:
    metrics = run(tmp_path / "out", source="folder", root=str(music))
    rejects = {row["path"]: row["reason"] for row in table(tmp_path / "out" / "rejects.csv")}
    assert set(rejects) == {"damaged.mid", "sub/wrong.mid", "one beat.mid", "far.mid"}
    assert (metrics["files"], metrics["rejected"], metrics["flat_pieces"]) == (12, 4, 1)
    assert rejects["damaged.mid"].startswith("not a readable MIDI file")
    assert "sub/wrong.tsv: line 1 starts with 'C:maj', expected" in rejects["sub/wrong.mid"]
    assert "expected at least 2" in rejects["one beat.mid"]
    assert "expected at most" in rejects["far.mid"]
    assert not any(str(tmp_path) in reason for reason in rejects.values())
    store = CellStore.open(tmp_path / "out")
    assert {row.path for row in store.pieces} == {f"{number}.mid" for number in range(8)}
    assert [row.path for row in store.pieces if row.flat] == ["3.mid"]


def test_pieces_with_repaired_beats_are_listed(tmp_path: Path, music: Path) -> None:
    for path in [*music.glob("sub/*"), *music.glob("[a-z]*.*")]:
        path.unlink()
    (music / "0_annotations.txt").write_text("0\n0.5\n0.500001\n1.0\n1.5\n2\n")
    (music / "1.beats.txt").write_text("0\n0.5\n1.0\n10.0\n")
    metrics = run(tmp_path / "out", source="folder", root=str(music))
    rows = {row.pop("path"): row for row in table(tmp_path / "out" / "repairs.csv")}
    assert list(rows["0.mid"].values())[2:] == ["0", "1", "0", "0", "12"]
    assert (rows["1.mid"]["merged"], rows["1.mid"]["inserted"]) == ("0", "2")
    assert metrics["repaired"] == 2
    store = CellStore.open(tmp_path / "out")
    assert {row.path for row in store.pieces if row.repaired} == {"0.mid", "1.mid"}


def test_no_usable_file_is_one_sentence_with_the_first_reasons(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.mid").write_bytes(b"no music")
    with pytest.raises(UserError) as error:
        run(tmp_path / "out", source="folder", root=str(tmp_path))
    message = str(error.value)
    assert "none of 5 files can be used (0.mid: not a readable MIDI file" in message
    assert message.endswith("; and 2 more)")
    assert "\n" not in message


def test_the_result_does_not_depend_on_workers_or_location(
    tmp_path: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "one", source="folder", root=str(music))
    moved = shutil.copytree(music, tmp_path / "elsewhere")
    monkeypatch.setattr(reading, "_ONE_PROCESS_FILES", 0)
    monkeypatch.setattr(reading, "_BATCH", 2)
    run(tmp_path / "two", workers=2, source="folder", root=str(moved))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_a_killed_run_goes_on_and_the_store_is_that_of_an_unbroken_one(
    tmp_path: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "whole", source="folder", root=str(music))
    monkeypatch.setattr(kept_results, "PART", 2)
    original, read = reading.read_record, list[str]()

    def interrupted(record: Any, *options: Any) -> Any:
        if len(read) == 7:
            raise KeyboardInterrupt
        read.append(record.path)
        return original(record, *options)

    monkeypatch.setattr(reading, "read_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", source="folder", root=str(music))
    shutil.rmtree(tmp_path / "out")  # as the next run does; the work directory stays
    first = read.copy()
    read.clear()
    capsys.readouterr()
    monkeypatch.setattr(reading, "_ONE_PROCESS_FILES", 100)
    metrics = run(tmp_path / "out", source="folder", root=str(music))
    assert "prepare: goes on; an earlier run has read 6 of 12 files" in capsys.readouterr().out
    assert set(first[:6]).isdisjoint(read)
    assert len(read) == 6
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert metrics["files"] == 12


def test_renditions_of_a_work_in_a_folder_are_in_one_split(tmp_path: Path) -> None:
    root = tmp_path / "music"
    root.mkdir()
    for number in range(12):
        work = composed_notes(number % 6)
        notes = work if number < 6 else rendition(work, number, shift=number % 3)
        write_midi(root / f"{number:02d}.mid", notes, np.arange(0, 200, 0.5))
    fractions = {"validation_fraction": 0.3, "test_fraction": 0.3}
    metrics = run(tmp_path / "out", source="folder", root=str(root), **fractions)
    rows = table(tmp_path / "out" / "works.csv")
    assert [row["piece"] for row in rows] == [row.id for row in CellStore.open(tmp_path / "out").pieces]
    splits: dict[str, set[str]] = {}
    for row, piece in zip(rows, CellStore.open(tmp_path / "out").pieces, strict=True):
        assert (row["work"], row["split"]) == (piece.composition, piece.split)
        splits.setdefault(row["work"], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert set().union(*splits.values()) == {"train", "validation", "test"}
    assert metrics["works"] == len(splits) == 6
    assert metrics["moved_pieces"] == sum(row["split"] != row["own_split"] for row in rows) > 0
    changed = tmp_path / "works.csv"
    changed.write_text("piece,work\nfolder/07.mid,mine\n")
    assert run(tmp_path / "mine", source="folder", root=str(root), works=str(changed))["works"] == 7


def test_pieces_are_sorted_by_split(tmp_path: Path, music: Path) -> None:
    run(tmp_path / "out", source="folder", root=str(music), validation_fraction=0.3, test_fraction=0.3)
    order = [
        (("train", "validation", "test").index(row.split), row.id)
        for row in CellStore.open(tmp_path / "out").pieces
    ]
    assert order == sorted(order)
    assert {split for split, _ in order} == {0, 1, 2}


def test_scores_are_flat_unless_trusted(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> None:
    header = "composer,title,midi_score,midi_performance,performance_annotations,midi_score_annotations\n"
    root = tmp_path / "asap"
    for name in ("score", "ann"):
        midi_file(root / f"{name}.mid")
        beat_file(root / f"{name}_annotations.txt")
    (root / "metadata.csv").write_text(
        header + "B,F,score.mid,ann.mid,ann_annotations.txt,score_annotations.txt\n"
    )
    for trusted in (False, True):
        out = tmp_path / f"trusted {trusted}"
        run(out, source="asap", root=str(root), score_velocity=trusted)
        flat = {row.kind: row.flat for row in CellStore.open(out).pieces}
        assert flat == {"performance": False, "score": not trusted}
    run(tmp_path / "scores", source="asap", root=str(root), kinds=["score"])
    assert [row.path for row in CellStore.open(tmp_path / "scores").pieces] == ["score.mid"]


def test_a_missing_annotation_is_a_reject(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> None:
    root = tmp_path / "pop"
    for song in ("001", "002"):
        midi_file(root / "POP909" / song / f"{song}.mid")
    beat_file(root / "POP909" / "001" / "beat_midi.txt")
    (root / "POP909" / "003").mkdir()
    metrics = run(tmp_path / "out", source="pop909", root=str(root))
    assert (metrics["files"], metrics["pieces_train"]) == (3, 1)
    rejects = {row["path"]: row["reason"] for row in table(tmp_path / "out" / "rejects.csv")}
    assert rejects["002/002.mid"].startswith("002/beat_midi.txt: no such beat file")
    assert rejects["003/003.mid"].startswith("no such file")


def test_estimated_beats_are_recorded_with_their_confidence(
    tmp_path: Path, music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bass_tracker().save(tmp_path)
    data = {"source": "folder", "root": str(music), "beats": "estimate", "tracker": str(tmp_path)}
    metrics = run(tmp_path / "out", **data)
    pieces = CellStore.open(tmp_path / "out").pieces
    assert metrics["estimated"] == len(pieces) == 11  # all but the file that is no MIDI
    sure = [piece.beat_confidence for piece in pieces]
    assert all(one is not None and 0 <= one <= 1 for one in sure)
    assert "11 pieces with beats estimated from their notes, mean confidence" in capsys.readouterr().out
    others = CellStore.open(_out_of(tmp_path / "others", music)).pieces
    assert {piece.beat_confidence for piece in others} == {None}


def _out_of(out: Path, music: Path) -> Path:
    run(out, source="folder", root=str(music))
    return out


def test_the_tracker_counts_only_where_beats_may_be_estimated(tmp_path: Path) -> None:
    tracker = tmp_path / "tracker"
    tracker.mkdir()
    bass_tracker().save(tracker)
    other = tmp_path / "other"
    other.mkdir()
    random_network().save(other)

    def settings(**data: str) -> dict[str, Any]:
        cfg = composed("data.pieces=3")
        return prepare._settings({**cfg, "data": {**cfg["data"], **data}})

    estimated = [settings(beats="estimate", tracker=str(path)) for path in (tracker, other)]
    assert estimated[0] != estimated[1]
    by_default = [settings(tracker=str(path)) for path in (tracker, other)]
    assert by_default[0] != by_default[1]
    used = [settings(default_tempo="use", tracker=str(path)) for path in (tracker, other)]
    assert used[0] == used[1]
    missing = {**composed("data.beats=estimate", f"data.tracker={tmp_path}/none")}
    with pytest.raises(UserError, match="train one with stage=beats"):
        prepare._check(missing)


def test_a_limit_keeps_some_of_each_split(tmp_path: Path, music: Path) -> None:
    fractions = {"validation_fraction": 0.3, "test_fraction": 0.3}
    metrics = run(tmp_path / "out", source="folder", root=str(music), limit=1, **fractions)
    assert metrics["files"] == 3


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ({"limit": 0}, "data.limit=0"),
        ({"limit": "many"}, "data.limit=many"),
        ({"kinds": ["scores"]}, "'scores' found, expected performance or score"),
        ({"kinds": ["score"]}, "no file of that kind"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    tmp_path: Path, music: Path, setting: dict[str, Any], found: str
) -> None:
    with pytest.raises(UserError, match=found):
        run(tmp_path / "out", source="folder", root=str(music), **setting)


@pytest.mark.parametrize("name", ["asap", "acpas", "pop909"])
def test_real_data_sets_are_read(shared_data: Path, tmp_path: Path, name: str) -> None:
    metrics = run(tmp_path / "out", source=name, root=str(shared_data / name), limit=30)
    assert metrics["rejected"] <= 1
    assert metrics["pieces_train"] >= 29
    assert metrics["pieces_validation"] >= 29
    store = CellStore.open(tmp_path / "out")
    intervals = np.concatenate([np.diff(store.beats_sec(index)) for index in range(len(store))])
    assert intervals.min() > 60 / 480 - 1e-6
    assert intervals.max() < 60 / 15 + 1e-6
    downbeat = np.concatenate([store.downbeat(index) for index in range(len(store))])
    assert 0.1 < (downbeat == 1).mean() < 0.6


def test_artifacts_carry_the_licences_of_all_parts_of_a_mix(tmp_path: Path, midi_file: Writer) -> None:
    maestro = write_maestro(tmp_path / "maestro", midi_file)
    aria = tmp_path / "aria"
    midi_file(aria / "data/aa/000001_0.mid", 5)
    (aria / "metadata.json").write_text(json.dumps({"1": {"metadata": {}, "audio_scores": {"0": 0.9}}}))
    midi_file(tmp_path / "own/a.mid", 6)
    parts = {"maestro": maestro, "aria": aria, "folder": tmp_path / "own"}
    given = [f"data.parts.{name}={path}" for name, path in parts.items()]
    cfg = tiny(
        tmp_path, "stage=codebook", "data=mix", *given, "data.licence='CC0 1.0'", "data.validation_fraction=0"
    )
    metrics = execute(cfg, tmp_path / "run")
    assert licences_of(Path(str(metrics["artifact"]))) == ["CC-BY-NC-SA-4.0", "CC0-1.0"]
    (cells,) = (tmp_path / "artifacts/prepare").glob("[!.]*/")
    assert licences_of(cells) == ["CC-BY-NC-SA-4.0", "CC0-1.0"]
    assert {(row.source, row.licence) for row in CellStore.open(cells).pieces} == {
        ("maestro", "CC BY-NC-SA 4.0"),
        ("aria", "CC BY-NC-SA 4.0"),
        ("folder", "CC0 1.0"),
    }
