"""Steps, times, fitted curve and tables of experiment `scaling`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pianolm.data.token_store import TokenRow
from pianolm.lm.windows import Windows
from tests.experiment import EXPERIMENTS, load

SIZES = {"0.3M": 0.3e6, "1.1M": 1.1e6, "3.1M": 3.1e6, "6.0M": 6.0e6}
TOKENS = {"100000": 0.45e6, "350000": 1.6e6, "all": 5.4e6}
TRUE = (9.0, 2.0, 0.4, 3.3, 0.5)


@pytest.fixture(scope="module")
def curve() -> ModuleType:
    return load("scaling/curve.py")


@pytest.fixture(scope="module")
def point() -> ModuleType:
    return load("scaling/point.py")


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return load("scaling/report.py")


def points_of(curve: ModuleType, sizes: int = 4, tokens: int = 3) -> list[Any]:
    """Points that lie on the true curve."""
    of_all = product(list(SIZES.values())[:sizes], list(TOKENS.values())[:tokens])
    return [curve.Point(n, d, curve.Curve(*TRUE).bits(n, d)) for n, d in of_all]


def row_of(size: str, notes: str, bits: float, **other: Any) -> dict[str, Any]:
    tokens = TOKENS[notes]
    return {
        "point": f"{size}/{notes}",
        "size": size,
        "parameters": SIZES[size],
        "train_notes": 1_200_000 if notes == "all" else int(notes),
        "tokens_seen": tokens,
        "train_seconds": tokens * SIZES[size] / 4e9,
        "peak_rss_mb": 1024,
        "music_tokens": 5.4e6,
        "bits_per_note": bits + 0.5,
        "bits_per_note_bar": 0.5,
        **other,
    }


def rows_of(curve: ModuleType, names: list[str]) -> list[dict[str, Any]]:
    pairs = [name.split("/") for name in names]
    true = curve.Curve(*TRUE)
    return [row_of(size, notes, true.bits(SIZES[size], TOKENS[notes])) for size, notes in pairs]


def test_steps_see_the_tokens_of_the_notes_and_at_most_one_pass(point: ModuleType) -> None:
    music = point.Music(notes=1000, tokens=4500)
    assert music.steps(music.asked_for("500"), batch_tokens=100) == 22
    assert music.steps(music.asked_for("all"), batch_tokens=100) == 45
    assert music.steps(1, batch_tokens=100) == 1
    with pytest.raises(ValueError, match="1001 notes asked for, but the training split has 1000"):
        music.asked_for("1001")


def test_music_is_that_of_the_training_split(point: ModuleType) -> None:
    pieces = [
        TokenRow("a", "pop909", "a", "train", "performance", False, notes=10, start=0, stop=45),
        TokenRow("b", "pop909", "b", "validation", "performance", False, notes=7, start=45, stop=80),
        TokenRow("c", "pop909", "c", "train", "performance", False, notes=5, start=80, stop=100),
    ]
    assert point.music_of(pieces) == (15, 65)


def test_time_of_a_resumed_training_is_that_of_a_whole_one(point: ModuleType) -> None:
    begin, step, steps = 12.0, 0.5, 100
    for done in (0, 40):
        training = {
            "program_seconds": begin + (steps - done) * step,
            "resumed_from_step": done,
            "tokens_seen": 4000,
        }
        found = point.time_of_training(training, begin + step, steps)
        assert found == {
            "train_seconds": pytest.approx(steps * step),
            "tokens_per_second": pytest.approx(4000 / (steps * step)),
        }
    with pytest.raises(ValueError, match="1 of 100 steps timed, expected two at least"):
        point.time_of_training({**training, "resumed_from_step": 99}, begin + step, steps)


def test_an_unknown_point_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, str(EXPERIMENTS / "scaling" / "point.py"), "2M/all"]
    environment = {**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 2
    assert "invalid choice: '2M/all'" in run.stderr
    assert "'6.0M/all'" in run.stderr


def test_a_fit_finds_the_curve_that_points_lie_on(curve: ModuleType) -> None:
    points = points_of(curve)
    assert curve.fit(points) == pytest.approx(TRUE, rel=1e-4)
    assert curve.errors_of_left_out(points) == pytest.approx([0] * len(points), abs=1e-4)


def test_a_point_far_away_hardly_moves_the_curve_and_shows_when_left_out(curve: ModuleType) -> None:
    points = points_of(curve)
    points[4] = points[4]._replace(bits=points[4].bits + 1)
    found = curve.fit(points)
    others = [p for p in points if p is not points[4]]
    assert max(abs(found.bits(p.parameters, p.tokens) - p.bits) for p in others) < 0.15
    assert curve.errors_of_left_out(points)[4] == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize(("sizes", "tokens"), [(2, 3), (4, 2), (2, 2)])
def test_an_exponent_that_the_points_do_not_tell_is_given(curve: ModuleType, sizes: int, tokens: int) -> None:
    points = points_of(curve, sizes, tokens)
    found = curve.fit(points)
    assert (found.size_exponent == curve.SIZE_EXPONENT) == (sizes < 3)
    assert (found.token_exponent == curve.TOKEN_EXPONENT) == (tokens < 3)
    assert [found.bits(p.parameters, p.tokens) for p in points] == pytest.approx(
        [p.bits for p in points], abs=1e-3
    )


@pytest.mark.parametrize(("sizes", "tokens"), [(1, 3), (4, 1)])
def test_one_size_or_one_number_of_tokens_is_too_few(curve: ModuleType, sizes: int, tokens: int) -> None:
    assert not curve.is_fittable(points_of(curve, sizes, tokens))


def test_speed_is_straight_between_logarithms_and_beyond(curve: ModuleType) -> None:
    speed = curve.Speed(np.array([1e6, 4e6, 16e6]), np.array([800.0, 200.0, 100.0]))
    assert speed.at(np.array([1e6, 2e6, 4e6, 8e6])) == pytest.approx([800, 400, 200, 100 * 2**0.5])
    assert speed.at(np.array([0.5e6, 64e6])) == pytest.approx([1600, 50])


def test_the_best_size_is_where_more_parameters_and_more_tokens_bring_the_same(curve: ModuleType) -> None:
    true, products = curve.Curve(*TRUE), 4e9
    sizes = np.array(list(SIZES.values()))
    best = curve.best_size(true, curve.Speed(sizes, products / sizes), core_seconds=3600)
    million_products = 3600 * products / 1e12  # N · D in millions of each
    _, a_factor, a, b_factor, b = TRUE
    expected = (a * a_factor / (b * b_factor) * million_products**b) ** (1 / (a + b))
    assert best.parameters / 1e6 == pytest.approx(expected, rel=0.003)
    assert best.tokens / 1e6 == pytest.approx(million_products / expected, rel=0.003)
    assert best.bits == pytest.approx(true.bits(best.parameters, best.tokens))
    assert not best.at_edge


def test_music_that_teaches_nothing_again_makes_the_best_size_that_of_one_pass(curve: ModuleType) -> None:
    sizes = np.array(list(SIZES.values()))
    speed = curve.Speed(sizes, 4e9 / sizes)
    free = curve.best_size(curve.Curve(*TRUE), speed, 3600)
    once = curve.best_size(curve.Curve(*TRUE), speed, 3600, counted_tokens=free.tokens / 2)
    assert once.parameters == pytest.approx(2 * free.parameters, rel=0.003)
    assert once.counted == pytest.approx(free.tokens / 2, rel=0.003)
    assert once.bits > free.bits


def test_a_best_size_at_the_end_of_the_search_says_so(curve: ModuleType) -> None:
    sizes = np.array(list(SIZES.values()))
    no_tokens = curve.Curve(*TRUE)._replace(token_factor=0.0)
    best = curve.best_size(no_tokens, curve.Speed(sizes, 4e9 / sizes), 3600)
    assert best.at_edge
    assert best.parameters == pytest.approx(sizes[-1] * curve.SEARCHED)


def test_a_grid_with_gaps_has_a_table_and_no_curve(curve: ModuleType, report: ModuleType) -> None:
    rows = rows_of(curve, ["0.3M/100000", "3.1M/100000", "0.3M/all"])
    tables = report.tables(rows)
    head, _, small, large = tables["results"]
    assert head.endswith("| 100,000 notes | 1,200,000 notes |")
    assert small.endswith(
        f"| {rows[0]['bits_per_note'] - 0.5:.2f} (0.6 min) | {rows[2]['bits_per_note'] - 0.5:.2f} (6.8 min) |"
    )
    assert large.startswith("| 3.10 M | 1,290 | 1.0 |")
    assert large.endswith("(5.8 min) | – |")
    assert tables["best"] == []
    assert "it takes 6 points" in tables["curve"][0]
    assert set(report.headlines(rows)) == {f"{row['point']}/bits_per_note" for row in rows}


def test_six_points_of_one_size_less_give_a_curve_and_what_is_extrapolated(
    curve: ModuleType, report: ModuleType
) -> None:
    rows = rows_of(
        curve, ["1.1M/100000", "3.1M/100000", "6.0M/100000", "1.1M/350000", "3.1M/350000", "6.0M/350000"]
    )
    tables = report.tables(rows)
    assert (
        "fitted to the 6 points of the sizes that start with induction heads (the exponent of tokens not fitted, but "
        "that of Hoffmann et al.)" in tables["curve"][0]
    )
    assert len(tables["best"]) == 2 + 4
    assert all(line.endswith("music |") for line in tables["best"][2:]), "more tokens than any training saw"
    found = report.headlines(rows)
    assert found["curve/points"] == 6
    assert found["curve/token_exponent"] == 0.28
    assert found["day/repeats_count/bits_per_note"] < found["hour/repeats_count/bits_per_note"]


def test_a_size_between_those_measured_within_one_pass_is_no_extrapolation(
    curve: ModuleType, report: ModuleType
) -> None:
    rows = rows_of(curve, list(load("scaling/point.py").POINTS))
    inside = curve.Best(2e6, 5e6, 5e6, 12.0, False)
    assert report.beyond(rows, inside) == ""
    assert report.beyond(rows, inside._replace(tokens=9e6, counted=5.4e6)) == ""
    assert report.beyond(rows, inside._replace(counted=9e6)) == "music"
    assert report.beyond(rows, inside._replace(parameters=7e6, counted=9e6)) == "size, music"
    assert report.beyond(rows, inside._replace(parameters=0.5e6)) == "size", (
        "the smallest is not of the curve"
    )


def test_the_size_without_induction_heads_is_not_of_the_curve(curve: ModuleType, report: ModuleType) -> None:
    rows = rows_of(curve, list(load("scaling/point.py").POINTS))
    other = [{**row, "bits_per_note": 99.0} if row["size"] == "0.3M" else row for row in rows]
    assert report.fitted(other).curve == report.fitted(rows).curve
    assert len(report.fitted(rows).points) == 9


def test_rows_of_a_run_replace_old_ones_and_others_stay(report: ModuleType, tmp_path: Path) -> None:
    old = [row_of("0.3M", "100000", 17.0), row_of("6.0M", "all", 12.0)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    run = tmp_path / "runs" / "0.3M" / "100000"
    run.mkdir(parents=True)
    new = row_of("0.3M", "100000", 16.5)
    (run / "row.json").write_text(json.dumps(new))
    assert report.collected(tmp_path / "runs", tmp_path) == [new, old[1]]


def test_the_picture_is_drawn_with_and_without_a_curve(
    curve: ModuleType, report: ModuleType, tmp_path: Path
) -> None:
    names = list(load("scaling/point.py").POINTS)
    for count in (3, 12):
        path = tmp_path / f"{count}.png"
        report.draw(rows_of(curve, names[:count]), path)
        assert path.stat().st_size > 5000


def test_tokens_of_overlapping_windows_are_seen_twice() -> None:
    overlap = load("scaling/overlap.py")
    scored, stop = np.array([1, 5]), np.array([8, 10])
    windows = Windows(np.zeros(2, np.int64), scored - 1, scored, stop, np.full(2, -1))
    assert overlap.times_seen(windows, 12).tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 1, 1, 0, 0]
