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
    with pytest.raises(UserError, match=r"tokenizer\.tempo='cubic' found, expected one of log50, published"):
        TempoBins("cubic")
