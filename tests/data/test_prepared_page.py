"""The page of a prepared artifact."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pianolm.data import prepared_page
from pianolm.data.cell_store import CellStore
from pianolm.data.prepared_page import save_prepared_page
from pianolm.run import execute
from tests.tiny import tiny

Writer = Callable[..., Path]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that pictures and sound take."""
    for module in ("html", "page_sections"):
        monkeypatch.setattr(f"pianolm.report.{module}.picture_uri", lambda _: "data:,")
    monkeypatch.setattr("pianolm.report.audio.mp3_bytes", lambda *_: b"sound")


def texts(page: str) -> dict[str, str]:
    """Text of each section by its heading, cells separated by bars."""
    sections = re.findall(r'<section aria-label="([^"]*)">(.*?)</section>', page, re.S)
    return {name: re.sub(r"(<[^>]*>|\s)+", "|", content) for name, content in sections}


def test_the_page_of_a_mix_tells_what_was_decided_and_plays_six_pieces(
    tmp_path: Path, midi_file: Writer, beat_file: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_page, "_EXCERPT_SEC", 2.0)
    for number in range(6):
        song = tmp_path / f"pop909/{number + 1:03d}"
        midi_file(song / f"{song.name}.mid", seed=number)
        beat_file(song / "beat_midi.txt")
        midi_file(tmp_path / f"own/{number}.mid", seed=10 + number, velocity=70 if number < 2 else None)
    (tmp_path / "pop909/001/beat_midi.txt").write_text("0\n0.5\n0.500001\n1.0\n")
    for name in ("a", "b"):
        (tmp_path / f"own/{name} damaged.mid").write_bytes(b"MThd, but not really")
    parts = [
        f"data.parts.{name}={tmp_path / path}" for name, path in (("pop909", "pop909"), ("folder", "own"))
    ]
    cfg = tiny(tmp_path, "stage=plot", "plot=data", "data=mix", *parts, "data.licence=CC0")
    metrics = execute(cfg, tmp_path / "run")
    assert metrics["pieces"] == 6
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page), "nothing beside the page is needed"
    assert page.count("<audio") == 6
    found = texts(page)
    assert "|pop909|6|0|0|6|0|0.0|192|" in found["Data sets"]
    assert "|all|" in found["Data sets"]
    assert "2|in|all,|1|kinds" in found["Rejected files"]
    assert "|damaged.mid|" in found["Rejected files"]
    assert "|001/001.mid|" in found["Repaired beats"]
    assert "|CC0-1.0|6|folder|MIT|6|pop909|" in found["Licences"]
    assert "Works in several data sets" not in found or "works.csv" in found["Works in several data sets"]
    rolls = [name for name in found if name.startswith(("pop909/", "folder/"))]
    assert len(rolls) == 6
    assert {name.partition("/")[0] for name in rolls[:2]} == {"pop909", "folder"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared demo. Tests only read it."""
    root = tmp_path_factory.mktemp("prepared")
    execute(tiny(root, "stage=prepare", "data.pieces=3"), root / "run")
    (path,) = (root / "artifacts/prepare").glob("[!.]*/")
    return path


def test_works_in_several_data_sets_and_moved_pieces_are_listed(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_page, "_PIECES", 1)
    prepared = Path(shutil.copytree(prepared, tmp_path / "prepared"))
    rows = [
        ("asap/Bach/a.mid", "bach/fugue", "test", "notes", "train"),
        ("acpas/s/S_1.mid", "bach/fugue", "test", "source", "test"),
        ("acpas/s/S_2.mid", "bach/other", "train", "source", "train"),
    ]
    with (prepared / "works.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("piece", "work", "split", "found_by", "own_split"), *rows])
    save_prepared_page(prepared, tmp_path / "page.html")
    found = texts((tmp_path / "page.html").read_text("utf-8"))
    assert "1|of|2|works" in found["Works in several data sets"]
    assert "|bach/fugue|1|of|asap,|1|of|acpas|test|notes,|source|" in found["Works in several data sets"]
    assert "|asap/Bach/a.mid|train|test|bach/fugue|" in found["Pieces moved to the split of their work"]
    assert "S_2" not in found["Pieces moved to the split of their work"]


def test_the_least_sure_pieces_come_first_and_all_data_sets_are_shown() -> None:
    rows = [
        SimpleNamespace(id=f"{source}/{number}", source=source, notes=number, beat_confidence=confidence)
        for source, confidence in (("asap", 0.5), ("maestro", None))
        for number in range(9)
    ]
    rows[3].beat_confidence, rows[7].beat_confidence, rows[0].beat_confidence = 0.2, 0.1, 0.0
    chosen = prepared_page._choose(rows)  # type: ignore[arg-type]
    assert chosen[:2] == [7, 3], "piece 0 has no notes"
    assert len(set(chosen)) == 6
    assert sum(rows[index].source == "maestro" for index in chosen) == 2


def test_an_excerpt_begins_with_the_bar_of_the_first_note(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_page, "_EXCERPT_SEC", 4.0)
    store = CellStore.open(prepared)
    shown = prepared_page._excerpt(store, 0, ["a remark"])
    first = int(store.cells(0).beat[0])
    assert shown.piece.bar_starts[0] == 0
    assert shown.piece.cells.beat[0] == first - max(b for b in store.bar_starts(0) if b <= first)
    seconds = shown.piece.beats_sec[-1]
    assert 4.0 <= seconds < 4.0 + np.diff(shown.piece.beats_sec).max()
    assert shown.remark == f"{store.pieces[0].split} · {store.pieces[0].kind} · a remark"
