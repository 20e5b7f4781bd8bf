from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm.errors import UserError
from pianolm.tokenizer.tempo import SCHEMES, TempoBins
from tests.tokenizer.toys import beat_times


def test_errors_of_log50_do_not_add_up() -> None:
    times = beat_times(1, 4000)
    tempo = TempoBins()
    assert np.abs(tempo.decode(tempo.encode(times)) - times).max() < 0.07


@pytest.mark.parametrize("scheme", SCHEMES)
@given(bins=st.lists(st.integers(1, 49), min_size=1, max_size=80))
def test_bins_are_stable_under_decoding_and_encoding(scheme: str, bins: list[int]) -> None:
    tempo = TempoBins(scheme)
    assert tempo.encode(tempo.decode(bins)).tolist() == bins


@pytest.mark.parametrize(
    ("bpm", "number"), [(15, 1), (19.99, 1), (20, 2), (120, 12), (125, 12), (129.9, 12), (480, 48), (600, 49)]
)
def test_published_bins_hold_ten_bpm_and_decode_as_their_middle(bpm: float, number: int) -> None:
    tempo = TempoBins("published")
    assert tempo.encode([0.0, 60 / bpm]).tolist() == [number]
    assert tempo.bpm[number] == 10 * number + 5


def test_published_rounds_each_beat_on_its_own() -> None:
    tempo, bpm = TempoBins("published"), np.array([61.0, 148.0, 61.0, 61.0, 300.0])
    times = np.concatenate([[0.0], np.cumsum(60 / bpm)])
    assert tempo.encode(times).tolist() == [6, 14, 6, 6, 30]
    alone = [int(tempo.encode(times[beat : beat + 2])[0]) for beat in range(bpm.size)]
    assert tempo.encode(times).tolist() == alone


@pytest.mark.parametrize("bpm", [20, 100, 150, 200, 240, 300])
def test_a_constant_tempo_on_a_bound_stays_in_one_published_bin(bpm: int) -> None:
    summed = np.concatenate([[0.0], np.cumsum(np.full(500, 60 / bpm))])
    assert set(TempoBins("published").encode(summed).tolist()) == {bpm // 10}


def test_an_unknown_scheme_lists_the_schemes() -> None:
    with pytest.raises(
        UserError, match=r"tokenizer\.tempo='cubic' found, expected one of log50, log50_tuned, published"
    ):
        TempoBins("cubic")


TUNED = TempoBins("log50_tuned")


@pytest.mark.parametrize("bpm", [15, 15.3, 63, 74, 120, 133.7, 480])
def test_a_constant_tempo_is_one_bin_repeated_on_a_tuned_scale(bpm: float) -> None:
    times = 3 + np.arange(17) * 60 / bpm
    tuning = TUNED.best_tuning(times)
    bins = TUNED.encode(times, tuning)
    assert len(set(bins.tolist())) == 1
    assert TUNED.bpm_of_tuning[tuning, bins[0]] == pytest.approx(bpm, rel=32 ** (1 / 49 / 32) - 1)
    assert TUNED.decode(bins, 3, tuning) == pytest.approx(times, abs=60 / bpm * 0.037), "half a step"
    assert bpm in (15, 480) or len(set(TempoBins().encode(times).tolist())) == 2, "goes to and fro unshifted"


@pytest.mark.parametrize("seed", range(6))
def test_the_best_tuning_changes_bins_least_and_of_equal_ones_errs_least(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.repeat(60 / rng.uniform(40, 200, 6), 10) * rng.normal(1, [0, 0.005, 0.05][seed % 3], 60)
    times = np.concatenate([[0.0], np.cumsum(lengths)])
    found = []
    for tuning in range(16):
        bins = TUNED.encode(times, tuning)
        error = np.abs(TUNED.decode(bins, 0, tuning) - times).mean()
        found.append((np.count_nonzero(np.diff(bins)), error, tuning))
    assert TUNED.best_tuning(times) == min(found)[2]


def test_errors_on_a_tuned_scale_do_not_add_up_at_the_ends_of_the_range() -> None:
    for bpm in (15, 15.2, 16, 470, 480):
        times = np.cumsum(np.concatenate([[0.0], np.diff(beat_times(1, 50)), np.full(400, 60 / bpm)]))
        tuning = TUNED.best_tuning(times)
        step = 60 / bpm * (32 ** (1 / 49) - 1)
        assert np.abs(TUNED.decode(TUNED.encode(times, tuning), times[0], tuning) - times)[60:].max() < step


def test_the_unshifted_scale_is_that_of_log50_and_others_have_no_tuning() -> None:
    times = beat_times(2)
    for scheme in ("log50", "published"):
        assert TempoBins(scheme).best_tuning(times) == 0
        assert TempoBins(scheme).bpm_of_tuning.shape == (1, 50)
        assert TempoBins(scheme).fingerprint != TUNED.fingerprint
    assert TUNED.encode(times).tolist() == TempoBins().encode(times).tolist()
    assert TUNED.best_tuning(times[:1]) == TUNED.best_tuning([]) == 0


def test_bins_within_a_beat_grid() -> None:
    assert np.flatnonzero(~TempoBins().in_grid).tolist() == []
    assert np.flatnonzero(~TempoBins("published").in_grid).tolist() == [0, 48, 49]
    assert np.flatnonzero(~TUNED.in_grid).tolist() == [49]
