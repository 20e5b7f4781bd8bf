"""Progress lines of stage prepare."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pianolm.data import file_progress
from pianolm.data.file_progress import with_progress


def test_a_line_after_the_first_second_and_then_every_five(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files take a second; before the first one nine seconds pass."""
    clock = [100.0]
    monkeypatch.setattr(file_progress.time, "perf_counter", lambda: clock[0])

    def files() -> Iterator[int]:
        for number in range(30):
            clock[0] += 0.5 if number else 9
            yield number

    assert list(with_progress(files(), 30, "prepare: reads")) == list(range(30))
    assert capsys.readouterr().out.splitlines() == [
        "prepare: reads 2 of 30 files  2 files/s  0:00:14 left",
        "prepare: reads 12 of 30 files  2 files/s  0:00:09 left",
        "prepare: reads 22 of 30 files  2 files/s  0:00:04 left",
    ]


def test_less_than_a_second_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress("abc", 3, "prepare: reads")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""
