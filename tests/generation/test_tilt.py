"""Tilting: means move as far as they should, and what a level asks for is measured on the right notes."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm.generation.sampling import Candidates, TokenOrder
from pianolm.generation.tilt import (
    LAST_BEATS,
    OWN_DENSITY,
    STRENGTH,
    DensityTilt,
    LoudnessTilt,
    NoteFeatures,
)
from pianolm.tokenizer.controls import DENSITY_BOUNDS, DENSITY_CENTRES, LOUDNESS_CENTRES, density_level
from pianolm.tokenizer.velocity_cells import read_velocities
from pianolm.tokenizer.vocabulary import LEVELS, Kind
from tests.toy_lm import toy_tokenizer

TOKENIZER = toy_tokenizer(ties="explicit")
ORDER = TokenOrder(TOKENIZER.grammar, TOKENIZER.tempo)
FEATURES = NoteFeatures(TOKENIZER, ORDER)
V = TOKENIZER.vocabulary
RNG = np.random.default_rng(0)


def velocities() -> Candidates:
    return Candidates(*ORDER.range_of((Kind.VELOCITY,)), np.zeros(0, np.intp))


def probabilities(logits_R: np.ndarray) -> np.ndarray:
    weight_R = np.exp(logits_R.astype(np.float64) - logits_R.max())
    return weight_R / weight_R.sum()


def cell() -> list[int]:
    """A pitch and a code that strikes two notes."""
    twice = np.flatnonzero((TOKENIZER.strikes_per_id == 2) & (V.kind_of == Kind.L1))
    return [V.offset(Kind.PITCH) + 60, int(twice[0])]


def test_the_velocity_of_a_code_is_what_the_tokenizer_decodes() -> None:
    ids, at = [V.bos, V.offset(Kind.TEMPO) + 20], V.offset(Kind.VELOCITY)
    assert FEATURES.open_cell([*ids, *cell()]) == tuple(cell()[1:])
    assert TOKENIZER.codec is not None
    for code in RNG.integers(0, TOKENIZER.codec.codebook_size, 20).tolist():
        _, struck = read_velocities(TOKENIZER, np.array([*ids, *cell(), at + code])).struck
        assert struck.size == 2
        assert FEATURES.velocity_of(tuple(cell()[1:]))[code] == struck.mean()


@pytest.mark.parametrize("level", range(2, LEVELS))  # the codes of the toy end before the outermost levels
def test_the_mean_velocity_moves_to_the_level_and_accents_stay(level: int) -> None:
    tilt, found = LoudnessTilt(FEATURES), velocities()
    velocity_R = FEATURES.velocity_of(tuple(cell()[1:]))
    expected, came = [], []
    for centre in RNG.normal(70, 8, 30):
        logits_R = (-(((velocity_R - centre) / 10) ** 2) / 2).astype(np.float32)
        expected.append(probabilities(logits_R) @ velocity_R)
        tilt.tilt(logits_R, found, [V.bos, V.offset(Kind.TEMPO), *cell()], level)
        came.append(probabilities(logits_R) @ velocity_R)
    assert np.mean(came) == pytest.approx(LOUDNESS_CENTRES[level - 1], abs=5)
    assert np.corrcoef(expected[5:], came[5:])[0, 1] > 0.8


def test_a_distribution_that_is_at_its_level_stays() -> None:
    tilt, found = LoudnessTilt(FEATURES), velocities()
    velocity_R = FEATURES.velocity_of(tuple(cell()[1:]))
    logits_R = (-(((velocity_R - LOUDNESS_CENTRES[4]) / 4) ** 2) / 2).astype(np.float32)
    before = probabilities(logits_R)
    tilt.tilt(logits_R, found, [V.bos, V.offset(Kind.TEMPO), *cell()], 5)
    assert probabilities(logits_R) == pytest.approx(before, abs=0.02)


def test_density_pushes_towards_the_level_until_the_last_beats_have_it() -> None:
    places = np.flatnonzero(np.isin(V.kind_of[ORDER.ids], (Kind.PITCH, Kind.TEMPO)))
    found = Candidates(int(places[0]), int(places[-1]) + 1, np.zeros(0, np.intp))
    is_pitch_R = V.kind_of[ORDER.ids[found.low : found.high]] == Kind.PITCH
    beat = [V.offset(Kind.TEMPO) + 20, *cell(), V.offset(Kind.VELOCITY)]

    def pushed(played: list[int], level: int) -> float:
        logits_R = np.zeros(found.high - found.low, np.float32)
        DensityTilt(FEATURES, played).tilt(logits_R, found, level)
        assert np.unique(logits_R[~is_pitch_R]).tolist() == [0.0]
        return float(logits_R[is_pitch_R][0])

    assert pushed([], 8) == pytest.approx(STRENGTH * np.log(DENSITY_CENTRES[7] / OWN_DENSITY))
    sparse = [V.bos, *(beat * (LAST_BEATS + 1))]  # two notes a beat, the last of which is not complete
    assert pushed(sparse, 2) == 0
    assert pushed(sparse, 1) < 0 < pushed(sparse, 5) < pushed(sparse, 8)
    assert np.isfinite(pushed([V.bos, *([V.offset(Kind.TEMPO)] * 9)], 8)), "beats without notes"


def test_the_centres_of_density_lie_in_their_levels() -> None:
    assert [density_level(round(1000 * centre), 1000) for centre in DENSITY_CENTRES] == list(
        range(1, LEVELS + 1)
    )
    assert len(DENSITY_BOUNDS) == LEVELS - 1
