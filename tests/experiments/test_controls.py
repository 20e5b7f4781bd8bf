"""What `experiments/controls` asks for."""

from __future__ import annotations

from collections import Counter

from pianolm.tokenizer.vocabulary import LEVELS
from tests.experiment import load


def test_every_pair_of_levels_is_asked_as_often() -> None:
    obey = load("controls/obey.py")
    asked = Counter[tuple[int, int]]()
    pieces = Counter[int]()
    for levels, chosen in obey.requests(obey.BOTH, 24):
        asked[levels["loudness"], levels["density"]] += len(chosen)
        pieces.update(chosen)
    assert set(asked.values()) == {3}
    assert len(asked) == LEVELS**2
    assert set(pieces.values()) == {LEVELS}, "each prompt as often as any other"


def test_one_kind_of_level_is_asked_of_every_prompt() -> None:
    obey = load("controls/obey.py")
    found = list(obey.requests("density", 3))
    assert found == [({"density": level}, [0, 1, 2]) for level in range(1, LEVELS + 1)]
    assert list(obey.requests(obey.NOTHING, 3)) == [({}, [0, 1, 2])] * LEVELS


def test_levels_are_correlated_with_what_came_of_their_own_kind() -> None:
    report = load("controls/report.py")
    rows = [
        {"loudness_level": i, "density_level": 9 - i, "loudness": 10 * i, "density": i} for i in range(1, 9)
    ]
    assert report.correlation(rows, "loudness")[0] == 1
    assert report.correlation(rows, "density")[0] == -1
    assert report.other("loudness") == "density"
