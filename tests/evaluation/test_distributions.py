"""Distributions of a piece made by hand, and distances against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from pianolm.evaluation.distributions import FEATURES, js_distance
from pianolm.music.beats import FRAMES
from pianolm.music.cells import FRAME_NOTE_DTYPE, frames_to_cells
from pianolm.music.piece import Piece


@given(arrays(np.int64, (3, 2, 6), elements=st.integers(0, 50)))
def test_distances_are_those_of_scipy(counts: np.ndarray) -> None:
    counts[..., 0] += 1
    found = js_distance(counts[:, 0], counts[:, 1])
    assert found == pytest.approx([jensenshannon(p, q, base=2) for p, q in counts], abs=1e-7)


def test_equal_distributions_have_distance_0_and_disjoint_ones_1() -> None:
    assert js_distance(np.array([1, 2, 0]), np.array([10, 20, 0])) == 0
    assert js_distance(np.array([1, 2, 0]), np.array([0, 0, 7])) == 1


def a_piece() -> Piece:
    """Beats 0 to 7 in 120 BPM, then 60; a chord held over beats 3 and 4, two notes on beat 4, one on beat 5.5."""
    rows = [
        (3 * FRAMES, 5 * FRAMES, 48, 60),
        (4 * FRAMES, 4 * FRAMES + 24, 60, 70),
        (4 * FRAMES, 5 * FRAMES, 61, 80),
        (5 * FRAMES + 24, 6 * FRAMES, 72, 127),
    ]
    notes = np.array(rows, FRAME_NOTE_DTYPE)
    beats_sec = np.concatenate([np.arange(8) * 0.5, 3.5 + np.arange(1, 5)])
    return Piece.from_cells(frames_to_cells(notes, 11), beats_sec)


def found(name: str) -> dict[float, int]:
    """Counts in beats 4 to 7 by the lower edge of their bins."""
    feature = FEATURES[name]
    counts = feature.counts(a_piece(), 4, 8)
    assert counts.shape == (feature.edges.size - 1,)
    return {float(feature.edges[k]): int(counts[k]) for k in np.flatnonzero(counts)}


def test_the_distributions_of_a_piece() -> None:
    assert found("pitch_class") == {-0.5: 2, 0.5: 1}
    assert found("range") == {12: 1}
    assert found("density") == {-0.5: 2, 0.5: 1, 1.5: 1}
    # 16 sixteenths: three notes in the first two, two in the next two, then two of silence, two of one note
    assert found("polyphony") == {-0.5: 10, 0.5: 2, 1.5: 2, 2.5: 2}
    assert found("inter_onset") == {17.5 / 12: 1}
    assert found("note_length") == {0.5: 2, 1.0: 1}
    assert found("velocity") == {64: 1, 80: 1, 120: 1}
    assert sorted(found("tempo").values()) == [1, 3]


def test_values_beyond_the_edges_count_in_the_last_bin() -> None:
    feature = FEATURES["density"]
    assert feature.histogram(np.array([0, 16, 17, 300])).tolist() == [1] + [0] * 15 + [3]


def test_every_feature_counts_nothing_in_silence_but_beats() -> None:
    for name, feature in FEATURES.items():
        counts = feature.counts(a_piece(), 6, 8).sum()
        assert counts == {"density": 2, "polyphony": 8, "tempo": 2}.get(name, 0), name
