"""Time signatures ↔ beats and bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.errors import UserError
from pianolm.music.metre import (
    TimeSignature,
    bar_signatures,
    beat_quarters,
    metric_grid,
    valid_signatures,
)
from pianolm.music.piece import Piece
from tests.music.midi_events import notes, signature, tempo, write_events

QUARTER_SEC = 0.5


def grid_of(rows: list[tuple[int, int, int]], end_tick: int) -> tuple[list[float], list[int]]:
    """Beats in quarter notes and indices of downbeats, of time signatures (quarter note, numerator, denominator)."""
    signatures = valid_signatures((100 * quarter, n, d) for quarter, n, d in rows)
    grid = metric_grid(signatures, 100, end_tick, QUARTER_SEC, "test")
    assert grid.downbeat is not None
    return (grid.beat_tick / 100).round(6).tolist(), np.flatnonzero(grid.downbeat).tolist()


@pytest.mark.parametrize(
    ("rows", "quarters", "beats", "downbeats"),
    [
        ([(0, 4, 4)], 8, np.arange(9), [0, 4, 8]),
        ([(0, 3, 4), (6, 4, 4)], 14, np.arange(15), [0, 3, 6, 10, 14]),
        ([(0, 2, 2)], 8, [0, 2, 4, 6, 8], [0, 2, 4]),
        ([(0, 6, 8)], 6, [0, 1.5, 3, 4.5, 6], [0, 2, 4]),
        ([(0, 12, 8)], 6, [0, 1.5, 3, 4.5, 6], [0, 4]),
        ([(0, 3, 8)], 3, np.arange(7) / 2, [0, 3, 6]),
        ([(0, 6, 16)], 3, [0, 0.75, 1.5, 2.25, 3], [0, 2, 4]),
        ([(0, 5, 8), (5, 8, 8)], 9, np.arange(19) / 2, [0, 5, 10, 18]),
        ([(0, 1, 4), (1, 3, 4)], 7, np.arange(8), [1, 4, 7]),  # an upbeat
        ([(0, 2, 4), (4, 3, 4)], 7, np.arange(8), [0, 2, 4, 7]),  # no upbeat: two bars
        ([(2, 3, 4)], 8, np.arange(9), [2, 5, 8]),
        ([(0, 4, 4), (6, 3, 4)], 9, np.arange(10), [0, 4, 6, 9]),  # a truncated bar
        ([(0, 4, 4), (50, 3, 4)], 4, np.arange(5), [0, 4]),  # after the last note
        ([(0, 0, 4), (0, 3, 4), (3, 300, 4), (3, 2, 4)], 5, np.arange(6), [0, 3, 5]),
    ],
)
def test_beats_and_bars_follow_time_signatures(
    rows: list[tuple[int, int, int]], quarters: int, beats: list[float], downbeats: list[int]
) -> None:
    assert grid_of(rows, 100 * quarters) == (list(map(float, beats)), downbeats)


def test_an_upbeat_that_is_no_whole_number_of_beats_starts_before_tick_0() -> None:
    signatures = [TimeSignature(0, 1, 8), TimeSignature(50, 2, 4)]
    grid = metric_grid(signatures, 100, 450, QUARTER_SEC, "test")
    assert grid.beat_tick.tolist() == [-50, 50, 150, 250, 350, 450]
    assert grid.downbeat is not None
    assert grid.downbeat.tolist() == [False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("metre", "bpm", "quarters"),
    [
        ((4, 4), 20, 1),
        ((4, 4), 300, 1),
        ((2, 2), 120, 2),
        ((2, 2), 40, 1),
        ((4, 1), 120, 4),
        ((6, 8), 120, 1.5),
        ((6, 8), 30, 0.5),
        ((3, 8), 120, 0.5),
        ((3, 8), 200, 1.5),
        ((4, 8), 120, 0.5),
        ((4, 8), 160, 1),
        ((7, 8), 160, 1),
        ((9, 16), 60, 0.75),
        ((5, 16), 120, 0.5),
    ],
)
def test_the_beat_depends_on_metre_and_tempo(metre: tuple[int, int], bpm: int, quarters: float) -> None:
    assert beat_quarters(TimeSignature(0, *metre), 60 / bpm) == quarters


def test_a_bar_that_beats_do_not_divide_has_a_longer_last_beat() -> None:
    grid = metric_grid([TimeSignature(0, 7, 8)], 100, 700, 60 / 160, "test")
    assert grid.beat_tick.tolist() == [0, 100, 200, 350, 450, 550, 700]


def test_bars_of_a_file_are_those_of_its_time_signatures(tmp_path: Path) -> None:
    tracks = [tempo(90), signature(3, 4), signature(4, 4, wait=600)], notes([60, 62] * 7)
    piece = Piece.from_midi(write_events(tmp_path / "a.mid", *tracks))
    assert piece.bar_starts.tolist() == [0, 3, 6, 10, 14]
    assert piece.remarks.sentences() == []
    piece = Piece.from_midi(
        write_events(tmp_path / "b.mid", [tempo(90), signature(6, 8)], notes([60, 62] * 6))
    )
    np.testing.assert_allclose(piece.beats_sec, np.arange(9), atol=1e-5)
    assert piece.remarks.sentences() == ["beats counted: 6/8 in dotted quarters"]


def test_bars_of_a_file_without_time_signatures_are_unknown(tmp_path: Path) -> None:
    assert (
        Piece.from_midi(write_events(tmp_path / "a.mid", [tempo(90)], notes([60, 62]))).downbeats_sec is None
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 20), st.sampled_from([1, 2, 4, 8, 16, 32, 3])),
        max_size=8,
    ),
    st.integers(1, 3000),
    st.floats(0.05, 4),
)
def test_any_time_signatures_give_an_ascending_grid_over_the_music(
    rows: list[tuple[int, int, int]], end_tick: int, quarter_sec: float
) -> None:
    grid = metric_grid(valid_signatures(rows), 96, end_tick, quarter_sec, "test")
    assert grid.beat_tick.size >= 2
    assert (np.diff(grid.beat_tick) > 0).all()
    assert grid.beat_tick[0] <= 0
    assert grid.beat_tick[-1] >= end_tick - 1e-3


@given(st.sets(st.integers(0, 60), min_size=2, max_size=12))
def test_written_time_signatures_imply_every_bar(starts: set[int]) -> None:
    starts_d = np.array(sorted(starts), np.intp)
    signatures = bar_signatures(starts_d, 480)
    grid = metric_grid(signatures, 480, 480 * 60, QUARTER_SEC, "test")
    assert grid.downbeat is not None
    np.testing.assert_array_equal(grid.beat_tick, np.arange(61) * 480)
    assert set(np.flatnonzero(grid.downbeat)) >= starts - {int(starts_d[0])}


def test_a_damaged_grid_gives_one_sentence() -> None:
    for signatures in (
        [],
        [TimeSignature(0, 3, 8)],
        [TimeSignature(2**31, 3, 64)],
        [TimeSignature(0, 1, 64)],
    ):
        with pytest.raises(UserError, match=r"^a\.mid: .*at most 100000"):
            metric_grid(signatures, 1, 2**31 + 1, 0.5, "a.mid")
