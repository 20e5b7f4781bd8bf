"""Reading of a data source: the manifest (what the fingerprint of stage `prepare` depends on), options, bad files."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pianolm.data import reading
from pianolm.data.reading import ReadingOptions, ReadPiece, Rejected, manifest, read_record, read_records
from pianolm.data.sources import Record
from tests.music.midi_events import control, note, notes, program, write_events

Writer = Callable[..., Path]


@pytest.fixture
def music(tmp_path: Path, midi_file: Writer, beat_file: Writer) -> Path:
    """A folder with beat files of each name, and one that cannot be read."""
    root = tmp_path / "music"
    for number, ending in enumerate(("_annotations.txt", ".beats.txt", ".tsv")):
        midi_file(root / f"{number}.mid", seed=number)
        beat_file(root / f"{number}{ending}")
    midi_file(root / "sub" / "wrong.mid", seed=9)
    (root / "sub" / "wrong.tsv").write_text("C:maj\t0.0\n")
    return root


def manifest_of(root: Path, **data: Any) -> dict[str, Any]:
    return manifest({"data": {"source": "folder", "root": str(root), **data}})


def test_the_manifest_depends_on_content_and_not_on_location(tmp_path: Path, music: Path) -> None:
    before = manifest_of(music)
    assert {"0.mid", "0_annotations.txt", "1.beats.txt", "2.tsv", "sub/wrong.mid"} <= set(before)
    assert before == manifest_of(shutil.copytree(music, tmp_path / "elsewhere"))
    assert set(manifest_of(music, beats="tempo_map")) == {name for name in before if name.endswith(".mid")}
    (music / "1.beats.txt").write_text("0\n0.7\n1.4\n")
    after = manifest_of(music)
    assert {name for name in before if before[name] != after[name]} == {"1.beats.txt"}


def test_the_manifest_of_the_demo_depends_on_seed_and_pieces() -> None:
    named = [manifest({"data": {"source": "demo", "seed": seed, "pieces": 4}}) for seed in (0, 0, 1)]
    assert named[0] == named[1] != named[2]


def test_a_file_that_is_listed_but_missing_is_in_the_manifest(tmp_path: Path, midi_file: Writer) -> None:
    midi_file(tmp_path / "001" / "001.mid")
    found = manifest({"data": {"source": "pop909", "root": str(tmp_path)}})
    assert found["001/beat_midi.txt"] == [0, "missing"]


def record(path: Path, **fields: Any) -> Record:
    return Record("folder", path.name, path, "auto", f"folder/{path.stem}", "train", **fields)


def test_options_of_the_data_reach_the_reading_of_files(tmp_path: Path) -> None:
    tracks = (
        [control(64, 127), *note(60, 10), control(64, 0, wait=290)],
        [program(48, 1), *note(72, 50, channel=1)],
    )
    path = write_events(tmp_path / "a.mid", *tracks)

    def read(**data: Any) -> ReadPiece | Rejected:
        return read_record(record(path), ReadingOptions.of({"source": "folder", "root": "x", **data}))

    piece = read(default_tempo="use")
    assert isinstance(piece, ReadPiece)
    assert (piece.row.notes, piece.remarks.other_notes, piece.remarks.default_tempo) == (1, 1, True)
    assert piece.cells.beat.tolist() == [0]
    piece = read(pedal="extend", programs="all")
    assert isinstance(piece, ReadPiece)
    assert (piece.row.notes, piece.remarks.pedalled_notes) == (2, 1)
    assert piece.cells.beat.tolist() == [0, 0, 1, 2]
    assert "only the default tempo" in read(default_tempo="reject").reason  # type: ignore[union-attr]
    assert "no piano found" in read(programs=[7]).reason  # type: ignore[union-attr]


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


class CrashingPath(type(Path())):  # type: ignore[misc]
    """A path at which the process that reads it dies, as by a fault in native code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return crash, ()


@pytest.mark.parametrize("crashing", [{4}, pytest.param({0, 1, 9}, marks=pytest.mark.slow)])
def test_a_file_at_which_a_worker_dies_is_rejected_and_the_rest_is_read(
    crashing: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "_ONE_PROCESS_FILES", 0)
    monkeypatch.setattr(reading, "_BATCH", 2)
    records = []
    for number in range(10):
        path = write_events(tmp_path / f"{number}.mid", notes([60 + number, 62]))
        records.append(record(CrashingPath(path) if number in crashing else path))
    results = list(read_records(records, ReadingOptions(), 2))
    assert capsys.readouterr().out == "prepare: starts 2 processes for 10 files\n"
    assert {index for index, result in enumerate(results) if isinstance(result, Rejected)} == crashing
    assert all("crashed" in results[index].reason for index in crashing)  # type: ignore[union-attr]
    ids = [result.row.id for result in results if isinstance(result, ReadPiece)]
    assert ids == [f"folder/{number}.mid" for number in range(10) if number not in crashing]


def test_an_unforeseen_error_rejects_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_events(tmp_path / f"{name}.mid", notes([60, 62])) for name in "abcd"]
    original = reading.Piece.from_midi

    def broken(path: Path, *args: Any, **options: Any) -> Any:
        errors = {
            "b": ZeroDivisionError("division by zero\nand more"),
            "c": PermissionError(13, "Permission denied"),
        }
        if path.stem in errors:
            raise errors[path.stem]
        return original(path, *args, **options)

    monkeypatch.setattr(reading.Piece, "from_midi", broken)
    results = list(read_records([record(path) for path in paths], ReadingOptions(), 1))
    assert [type(result) for result in results] == [ReadPiece, Rejected, Rejected, ReadPiece]
    assert results[1] == Rejected("unexpected ZeroDivisionError while reading: division by zero")
    assert results[2] == Rejected("cannot be read: Permission denied")
