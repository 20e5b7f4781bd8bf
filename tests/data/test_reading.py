"""The manifest of a data source: what the fingerprint of stage `prepare` depends on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pianolm.data.reading import manifest

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
