"""The F-measure is mir_eval's."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest

from pianolm.music.beat_agreement import best_f_measure, f_measure, other_levels, without_start


@pytest.mark.parametrize("seed", range(30))
def test_it_is_that_of_mir_eval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    annotated = np.cumsum(rng.uniform(0.05, 0.6, 60))  # some closer than the tolerance
    moved = annotated[rng.random(60) < 0.8] + rng.normal(0, 0.03)
    estimated = np.sort(np.concatenate([moved, rng.uniform(0, 20, 10)]))
    expected = mir_eval.beat.f_measure(
        mir_eval.beat.trim_beats(annotated), mir_eval.beat.trim_beats(estimated)
    )
    assert f_measure(without_start(annotated), without_start(estimated)) == pytest.approx(expected)


def test_nothing_agrees_with_no_beats() -> None:
    beats = np.arange(10.0)
    assert f_measure(beats, beats[:0]) == f_measure(beats[:0], beats) == 0


@pytest.mark.parametrize("factor", [2, 3])
def test_other_metrical_levels_are_forgiven(factor: int) -> None:
    beats = np.arange(60) * 0.5
    assert best_f_measure(beats, beats[1::factor]) > 0.95
    assert best_f_measure(beats[::factor], beats) > 0.95
    assert f_measure(beats, beats[1::factor]) < 0.7


def test_levels_have_every_phase() -> None:
    found = [level.tolist() for level in other_levels(np.arange(5.0))]
    assert [0, 2, 4] in found
    assert [1, 3] in found
    assert [2] in found
    assert np.arange(0, 4.5, 0.5).tolist() in found
