"""Results that a killed run leaves and the next one goes on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pianolm.data import kept_results
from pianolm.data.kept_results import KeptResults, kept_items

KEYS = [f"item {number}" for number in range(7)]
Compute = Callable[[Sequence[int]], Iterator[int]]


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "PART", 2)


def squares(computed: list[int], killed_at: int | None = None) -> Compute:
    """Computes squares and notes of which items; ends like a killed process at one of them."""

    def compute(indices: Sequence[int]) -> Iterator[int]:
        for index in indices:
            if index == killed_at:
                raise KeyboardInterrupt
            computed.append(index)
            yield index**2

    return compute


def test_a_killed_run_goes_on_with_the_part_it_was_in(tmp_path: Path) -> None:
    computed: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        list(KeptResults[int](tmp_path, KEYS, {}).complete(squares(computed, killed_at=5)))
    assert computed == [0, 1, 2, 3, 4]
    assert kept_items(tmp_path)
    computed.clear()
    kept = KeptResults[int](tmp_path, KEYS, {})
    assert kept.count == 4
    assert list(kept.complete(squares(computed))) == [index**2 for index in range(7)]
    assert computed == [4, 5, 6]


def test_damaged_and_foreign_results_are_computed_again(tmp_path: Path) -> None:
    list(KeptResults[int](tmp_path, KEYS, {}).complete(squares([])))
    damaged = sorted(tmp_path.glob("kept/*.pkl"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    computed: list[int] = []
    assert list(KeptResults[int](tmp_path, KEYS, {}).complete(squares(computed))) == [i**2 for i in range(7)]
    assert computed == [2, 3]
    computed.clear()
    other = [*KEYS[:6], "another item"]
    list(KeptResults[int](tmp_path, other, {}).complete(squares(computed)))
    assert computed == [6]


def test_resume_never_starts_over(tmp_path: Path) -> None:
    list(KeptResults[int](tmp_path, KEYS, {}).complete(squares([])))
    kept = KeptResults[int](tmp_path, KEYS, {"resume": "never"})
    assert kept.count == 0
    assert not kept_items(tmp_path)


def test_some_results_are_read_again_in_any_order(tmp_path: Path) -> None:
    kept = KeptResults[int](tmp_path, KEYS, {})
    list(kept.complete(squares([])))
    assert list(kept.select([1, 2, 6, 0, 5])) == [1, 4, 36, 0, 25]
