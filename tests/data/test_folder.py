"""A folder in which some files cannot be used: each is listed with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pianolm.data.reading import ReadPiece, read_record
from pianolm.data.sources import collect
from tests.data.test_sources import config

Writer = Callable[..., Path]


def test_a_folder_lists_what_it_cannot_use_and_follows_links_once(tmp_path: Path, midi_file: Writer) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    midi_file(root / "z" / "a.mid")
    midi_file(elsewhere / "b.mid", seed=1)
    midi_file(root / ("n" * 244 + ".mid"), seed=2)
    Path(os.fsdecode(os.fsencode(root) + b"/Caf\xe9.mid")).write_bytes((root / "z" / "a.mid").read_bytes())
    (root / "again").symlink_to(root / "z")
    (root / "loop").symlink_to(root)
    (root / "outside").symlink_to(elsewhere)
    (root / "c.mid").symlink_to(elsewhere / "b.mid")
    (root / "gone.mid").symlink_to("nowhere.mid")
    (root / "self.mid").symlink_to("self.mid")
    (root / "device.mid").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.mid")
    collection = collect(config("folder", root, beats="auto"), tmp_path)
    names = ["Caf\\xe9.mid", "c.mid", "n" * 244 + ".mid", "outside/b.mid", "z/a.mid"]
    assert sorted(record.path for record in collection.records) == names
    assert dict(collection.rejects) == {
        "device.mid": "a pipe, socket or device; expected a file",
        "gone.mid": "cannot be read: No such file or directory; expected a file",
        "pipe.mid": "a pipe, socket or device; expected a file",
        "self.mid": "cannot be read: Too many levels of symbolic links; expected a file",
    }
    assert {read_record(record).__class__ for record in collection.records} == {ReadPiece}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_rejects(tmp_path: Path, midi_file: Writer) -> None:
    for name in ("a.mid", "b.mid", "closed/c.mid"):
        midi_file(tmp_path / name)
    (tmp_path / "b.mid").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        collection = collect(config("folder", tmp_path, beats="auto"), tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert [record.path for record in collection.records] == ["a.mid"]
    assert [path for path, _ in collection.rejects] == ["b.mid", "closed"]
