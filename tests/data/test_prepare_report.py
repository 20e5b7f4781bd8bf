"""The report of stage `prepare`."""

from __future__ import annotations

import csv
from pathlib import Path

from pianolm.data.prepare_report import PrepareReport
from pianolm.data.reading import ReadingOptions, read_record
from pianolm.data.sources import Collection, Record
from pianolm.data.works.grouping import PieceWork
from tests.music.midi_events import name, note, notes, program, tempo, write_events


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_lines_and_tables_tell_what_reading_decided(tmp_path: Path) -> None:
    strings = [program(48, 1), *notes([72, 74], channel=1)]
    clicks = [name("click"), *notes([37] * 4, ticks=10)]
    files = {
        "band": ([tempo(90), *notes([60, 62])], strings),
        "clicks": (notes([60, 62, 64, 65]), clicks),
        "late": ([tempo(90)], note(60, 50, wait=100 * 100)),
        "none": (notes([60, 62]),),
        "strings": (strings,),
    }
    records = []
    for stem, tracks in files.items():
        path = write_events(tmp_path / f"{stem}.mid", *tracks)
        records.append(Record("folder", path.name, path, "auto", f"folder/{stem}", "train"))
    report = PrepareReport(Collection(tmp_path, tuple(records)))
    for record in records:
        work = PieceWork(record.id, record.composition, record.split, "source", record.split)
        report.add(record, read_record(record, ReadingOptions(default_tempo="use")), work)
    lines = report.lines()
    assert lines[0].startswith(
        "5 files: 4 used, 1 rejected (strings.mid: no piano found: its notes have the programs 48"
    )
    assert lines[1:] == [
        "0 pieces with repaired beats, 4 without velocities",
        "1 pieces with only the default tempo of 120 BPM, or one that their notes do not follow: "
        "put beat files beside them, estimate their beats with data.beats=auto and data.default_tempo=estimate, or "
        "leave them out with data.default_tempo=reject",
        "2 notes of other instruments left out; data.programs=all reads them (1 files)",
        "4 notes of beat tracks left out (1 files)",
        "100 silent beats cut before first notes (1 files)",
        "1 pieces with beats from a beat track",
        "pieces: 4 train, 0 validation, 0 test",
        "warning: fewer than 3 pieces in validation, test; figures of such a split say little",
    ]
    report.write(tmp_path)
    rows = rows_of(tmp_path / "remarks.csv")
    assert {row["path"] for row in rows} == {"band.mid", "clicks.mid", "late.mid", "none.mid"}
    late = {"source": "folder", "path": "late.mid", "remark": "100 silent beat(s) before the first note cut"}
    assert late in rows


def test_tables_of_a_mix_name_the_data_set_of_each_file(tmp_path: Path) -> None:
    strings = [program(48, 1), *notes([72, 74], channel=1)]
    records, parts = [], []
    for part in ("asap", "own"):
        (tmp_path / part).mkdir()
        for stem, tracks in (("far", (notes([60, 62]), strings)), ("bad", ())):
            path = write_events(tmp_path / part / f"{stem}.mid", *tracks)
            path.with_suffix(".txt").write_text("0\n0.5\n9\n")
            records.append(Record(part, path.name, path, path.with_suffix(".txt"), f"{part}/{stem}", "train"))
        parts.append((part, Collection(tmp_path / part, ())))
    report = PrepareReport(Collection(tmp_path, tuple(records), parts=tuple(parts)))
    for record in records:
        work = PieceWork(record.id, record.composition, record.split, "source", record.split)
        report.add(record, read_record(record), work)
    report.write(tmp_path)
    assert [row["path"] for row in rows_of(tmp_path / "rejects.csv")] == ["asap/bad.mid", "own/bad.mid"]
    for table in ("repairs.csv", "remarks.csv"):
        files = [(row["source"], row["path"]) for row in rows_of(tmp_path / table)]
        assert files == [("asap", "far.mid"), ("own", "far.mid")], table
