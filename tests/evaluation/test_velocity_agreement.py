"""Agreement of velocities: known values, bounds, and the pairing of notes of two performances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pianolm.evaluation.velocity_agreement import PAIR_FRAMES, Agreement, compare, pair_notes
from pianolm.music.cells import FRAME_NOTE_DTYPE, FrameNotes


def velocities(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)


def test_agreement_of_known_velocities() -> None:
    human_N = velocities(40, 48, 56, 64)
    assert compare(human_N, human_N) == Agreement(4, 0, pytest.approx(1), 0)
    moved = compare(velocities(48, 56, 64, 72), human_N)
    assert moved == Agreement(4, 8, pytest.approx(1), pytest.approx(0.5)), (
        "a quarter of each distribution differs"
    )
    turned = compare(velocities(64, 56, 48, 40), human_N)
    assert turned == Agreement(4, 16, pytest.approx(-1), 0), "the same distribution"
    assert compare(velocities(1, 100), velocities(50, 127)) == Agreement(
        2, 38, pytest.approx(1), pytest.approx(1)
    )
    assert compare(velocities(52, 52, 52, 52), human_N) == Agreement(4, 8, 0, pytest.approx(0.7409, abs=1e-4))
    assert compare(velocities(47), velocities(40)) == Agreement(1, 7, 0, 0), "one bin"


@given(st.lists(st.tuples(st.integers(1, 127), st.integers(1, 127)), min_size=2))
def test_agreement_is_symmetric_and_bounded(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, np.uint8).T
    found, back = compare(one, other), compare(other, one)
    assert found == pytest.approx(back)
    assert 0 <= found.js <= 1 + 1e-9
    assert found.mae <= 126
    if np.ptp(one) and np.ptp(other):
        assert found.r == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-9)


def test_pairs_have_one_pitch_and_are_nearest_to_each_other() -> None:
    def notes(*onset_pitch: tuple[int, int]) -> FrameNotes:
        array = np.zeros(len(onset_pitch), FRAME_NOTE_DTYPE)
        array["onset"], array["pitch"] = np.array(onset_pitch).T
        return np.sort(array, order=["pitch", "onset"])

    one = notes((0, 60), (48, 60), (96, 60), (100, 72))
    other = notes((-4, 60), (3, 60), (48 + PAIR_FRAMES, 60), (97 + PAIR_FRAMES, 60), (100, 71))
    first, second = pair_notes(one, other)
    assert [(one[i]["onset"], other[j]["onset"]) for i, j in zip(first, second, strict=True)] == [
        (0, 3),
        (48, 48 + PAIR_FRAMES),
    ]
    first, second = pair_notes(other[:1], one[:1])
    assert (first.tolist(), second.tolist()) == ([0], [0])
