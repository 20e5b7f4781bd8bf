"""Remembered content hashes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pianolm.data import file_hashes
from pianolm.data.file_hashes import FileHashes, HashMemory
from pianolm.data.reading import manifest

HOUR_NS = 3600 * 10**9


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written an hour ago, as far as the clock is asked."""
    now = file_hashes.time.time_ns
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: now() + HOUR_NS)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents that are hashed from here on."""
    contents: list[bytes] = []
    original = file_hashes.hashlib.blake2b

    def noted(content: bytes, digest_size: int) -> object:
        if digest_size == 16:
            contents.append(content)
        return original(content, digest_size=digest_size)

    monkeypatch.setattr(file_hashes.hashlib, "blake2b", noted)
    return contents


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def of(path: Path, memory: Path) -> tuple[int, str]:
    """The hash as a new process finds it."""
    hashes = FileHashes(memory)
    found = hashes.of(path)
    hashes.save()
    return found


def test_an_unchanged_file_is_read_once(settled: None, hashed: list[bytes], tmp_path: Path) -> None:
    name = os.fsdecode(b"a \xe9\n.mid")
    path, memory = write(tmp_path / name, b"music"), tmp_path / "work" / "memory"
    assert of(path, memory) == of(path, memory) == (5, "5d7c66698e99b6783c21edb69c8e47fe")
    assert hashed == [b"music"]


@pytest.mark.parametrize(
    "change", ["content", "content and time stamp put back", "another file of that name"]
)
def test_a_changed_file_is_read_again(
    change: str, settled: None, hashed: list[bytes], tmp_path: Path
) -> None:
    path, memory = write(tmp_path / "a.mid", b"music"), tmp_path / "memory"
    before = path.stat()
    first = of(path, memory)
    if change == "another file of that name":
        write(tmp_path / "b.mid", b"MUSIC").replace(path)
    else:
        write(path, b"MUSIC")
    if change != "content":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert of(path, memory) != first
    assert hashed == [b"music", b"MUSIC"]


def test_a_file_that_was_just_written_is_not_remembered(hashed: list[bytes], tmp_path: Path) -> None:
    path, memory = write(tmp_path / "a.mid", b"music"), tmp_path / "memory"
    assert of(path, memory) == of(path, memory)
    assert hashed == [b"music"] * 2
    assert not memory.exists()


def test_a_torn_line_is_left_out_and_a_damaged_memory_is_ignored(
    settled: None, hashed: list[bytes], tmp_path: Path
) -> None:
    paths = [write(tmp_path / name, name.encode()) for name in ("a.mid", "b.mid")]
    memory = tmp_path / "memory"
    expected = [of(path, memory) for path in paths]
    hashed.clear()
    memory.write_bytes(memory.read_bytes()[:-9])
    assert [of(path, memory) for path in paths] == expected
    assert hashed == [b"b.mid"]
    memory.write_bytes(b"\xff\x00\n{\n")
    assert [of(path, memory) for path in paths] == expected


def test_replaced_lines_are_dropped(settled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "_LINES", 3)
    path, memory = tmp_path / "a.mid", tmp_path / "memory"
    for number in range(9):
        of(write(path, b"x" * number), memory)
    assert memory.read_bytes().count(b"\n") <= 2 + 3 + 1


def test_the_manifest_of_unchanged_files_reads_nothing(
    settled: None,
    hashed: list[bytes],
    tmp_path: Path,
    midi_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(3):
        midi_file(tmp_path / "music" / f"{seed}.mid", seed)
    (tmp_path / "music" / "0.tsv").write_text("0\n0.5\n")
    data = {"source": "folder", "root": str(tmp_path / "music")}
    found = []
    for _ in range(2):
        monkeypatch.setattr("pianolm.data.reading.HASHES", memory := HashMemory())
        monkeypatch.setattr("pianolm.data.sources.folder.HASHES", memory)
        found.append(manifest({"data": data, "paths": {"work": str(tmp_path / "work")}}))
    assert found[0] == found[1]
    assert set(found[0]) == {"0.mid", "0.tsv", "1.mid", "2.mid"}
    assert len(hashed) == 4
