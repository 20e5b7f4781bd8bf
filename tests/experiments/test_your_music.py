"""Files of experiment `your-music`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.test_sources import write_asap
from tests.experiment import load


def test_the_folder_has_one_performance_of_each_work_for_training_with_its_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hundred = load("your-music/hundred.py")
    root = write_asap(tmp_path)
    works = {record.composition for record in hundred.chosen(root)}
    assert 1 < len(works) == len(hundred.chosen(root))
    monkeypatch.setattr(hundred, "PIECES", len(works) - 1)
    for _ in range(2):  # the second time all links are there
        hundred.main(root, tmp_path / "folder")
    linked = sorted(path.name for path in (tmp_path / "folder").iterdir())
    names = [f"{number:03d}" for number in range(len(works) - 1)]
    assert linked == sorted(f"{name}{ending}" for name in names for ending in (".mid", "_annotations.txt"))
    assert all(path.resolve().is_relative_to(root.resolve()) for path in (tmp_path / "folder").iterdir())
