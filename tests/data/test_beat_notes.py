"""Notes counted in beats, and in strict time."""

from __future__ import annotations

import numpy as np

from pianolm.data.beat_notes import BeatNotes


def rubato() -> BeatNotes:
    """A rolled chord, a triplet and a last note, slower and slower, in no order of loudness."""
    return BeatNotes(
        onset_beat=np.array([0.98, 1.01, 1.04, 1.3, 1.65, 2.97]),
        end_beat=np.array([1.9, 1.02, 2.1, 1.6, 2.0, 3.0]),
        pitch=np.array([67, 60, 64, 72, 74, 48]),
        velocity=np.array([60, 61, 62, 63, 64, 65]),
        beats_sec=np.array([0.0, 0.5, 1.0, 1.8]),
        bar_start=np.array([0]),
        is_score=False,
    )


def test_strict_time_has_a_grid_and_one_tempo() -> None:
    strict = rubato().in_strict_time()
    np.testing.assert_allclose(strict.onset_beat, [1, 1, 1, 1 + 4 / 12, 1 + 8 / 12, 3 - 1 / 12])
    np.testing.assert_array_equal(strict.pitch, [60, 64, 67, 72, 74, 48])
    np.testing.assert_array_equal(strict.velocity, [61, 62, 60, 63, 64, 65])
    np.testing.assert_allclose(strict.beats_sec, [0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(strict.end_beat[:3], [1 + 1 / 12, 2 + 1 / 12, 1 + 11 / 12])
    assert (strict.end_beat <= strict.n_beats).all()


def test_strict_time_in_strict_time_is_itself() -> None:
    strict = rubato().in_strict_time()
    again = strict.in_strict_time()
    for name in ("onset_beat", "end_beat", "pitch", "velocity", "beats_sec"):
        np.testing.assert_allclose(getattr(again, name), getattr(strict, name), err_msg=name)
