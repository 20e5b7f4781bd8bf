"""Sampling follows the configured probabilities, from one random number a token, among what the grammar allows."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.generation.config import GenerationConfig
from pianolm.generation.sampling import Candidates, Sampler, TokenOrder
from pianolm.tokenizer.grammar import Grammar
from pianolm.tokenizer.grammar_state import State
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.toy_lm import LAYOUTS, toy_tokenizer

GRAMMAR = toy_tokenizer().grammar
ORDER = TokenOrder(GRAMMAR)
VOCABULARY = GRAMMAR.vocabulary
DRAWS = 5_000
HOT = GenerationConfig(temperature=2.0, top_p=1.0)
PITCHES = State(Phase.BEAT, 59)
"""A pitch above 59, a tempo or EOS may come next."""


def logits_of(candidates: Candidates, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, candidates.high - candidates.low).astype(np.float32)


def frequencies(config: GenerationConfig, state: State, logits: np.ndarray) -> np.ndarray:
    """[V] how often each id is sampled, over evenly spaced random numbers."""
    sampler, candidates = Sampler(ORDER, config), ORDER.candidates(state)
    ids = [sampler.sample(logits.copy(), candidates, (i + 0.5) / DRAWS) for i in range(DRAWS)]
    return np.bincount(ids, minlength=VOCABULARY.size) / DRAWS


def expected(logits: np.ndarray, state: State, temperature: float, kept: int | None = None) -> np.ndarray:
    """[V] softmax over the allowed ids, or over the `kept` most likely of them."""
    candidates = ORDER.candidates(state)
    ids = ORDER.ids[candidates.low : candidates.high]
    weight = np.where(GRAMMAR.allowed(state)[ids], np.exp(logits.astype(float) / temperature), 0)
    if kept is not None:
        weight[np.argsort(-weight)[kept:]] = 0
    probability = np.zeros(VOCABULARY.size)
    probability[ids] = weight / weight.sum()
    return probability


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    logits = logits_of(ORDER.candidates(PITCHES))
    found = frequencies(GenerationConfig(temperature=temperature, top_p=1.0), PITCHES, logits)
    assert np.abs(found - expected(logits, PITCHES, temperature)).max() < 2 / DRAWS


def test_top_k_top_p_and_min_p_cut_where_they_say() -> None:
    logits = logits_of(ORDER.candidates(PITCHES))
    plain = np.sort(expected(logits, PITCHES, 1.0))[::-1]
    of_p = int(np.searchsorted(plain.cumsum(), 0.8)) + 1
    of_min = int((plain >= 0.05 * plain[0]).sum())
    twelve = plain[:12] / plain[:12].sum()
    of_both = int(np.searchsorted(twelve.cumsum(), 0.8)) + 1
    cuts = {
        of_p: GenerationConfig(temperature=1.0, top_p=0.8),
        of_min: GenerationConfig(temperature=1.0, top_p=1.0, min_p=0.05),
        12: GenerationConfig(temperature=1.0, top_p=1.0, top_k=12),
        of_both: GenerationConfig(temperature=1.0, top_p=0.8, top_k=12),
    }
    assert len(cuts) == 4
    for kept, config in cuts.items():
        found = frequencies(config, PITCHES, logits)
        assert np.abs(found - expected(logits, PITCHES, 1.0, kept)).max() < 2 / DRAWS
        assert (found > 0).sum() == kept


def test_temperature_zero_and_top_k_one_take_the_most_likely() -> None:
    logits = logits_of(ORDER.candidates(PITCHES))
    greedy = frequencies(GenerationConfig(temperature=0), PITCHES, logits)
    assert greedy.max() == 1
    assert greedy.argmax() == expected(logits, PITCHES, 1.0).argmax()
    assert np.array_equal(frequencies(GenerationConfig(top_k=1), PITCHES, logits), greedy)
    assert np.array_equal(frequencies(GenerationConfig(temperature=1e-30), PITCHES, logits), greedy)


def test_settings_of_a_kind_leave_the_kinds_alone_and_change_what_is_drawn_of_it() -> None:
    logits = logits_of(ORDER.candidates(PITCHES))
    plain = expected(logits, PITCHES, 1.0)
    config = GenerationConfig(
        temperature=1.0, top_p=1.0, by_kind={"tempo": {"temperature": 0}, "pitch": {"top_k": 2}}
    )
    found = frequencies(config, PITCHES, logits)
    for kind, ids in (("tempo", 1), ("pitch", 2), ("eos", 1)):
        of_kind = VOCABULARY.kind_of == Kind[kind.upper()]
        assert abs(found[of_kind].sum() - plain[of_kind].sum()) < 3 / DRAWS
        assert (found[of_kind] > 0).sum() == ids
        assert found[of_kind].argmax() == plain[of_kind].argmax()
    two = np.sort(plain[VOCABULARY.ids(Kind.PITCH)])[-2:]
    drawn = np.sort(found[VOCABULARY.ids(Kind.PITCH)])[-2:]
    assert np.allclose(drawn / drawn.sum(), two / two.sum(), atol=1e-3)


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_candidates_are_the_allowed_ids_in_every_state(mode: str, options: dict[str, object]) -> None:
    grammar = toy_tokenizer(mode, **options).grammar
    order, rng = TokenOrder(grammar), np.random.default_rng(0)
    sampler = Sampler(order, HOT)
    state, phases = grammar.start(), set()
    for _ in range(600):
        phases.add(state.phase)
        candidates = order.candidates(state)
        ids = np.delete(order.ids[candidates.low : candidates.high], candidates.forbidden)
        assert np.array_equal(np.sort(ids), np.flatnonzero(grammar.allowed(state)))
        logits = rng.normal(0, 3, candidates.high - candidates.low).astype(np.float32)
        state = grammar.advance(state, sampler.sample(logits, candidates, rng.random()))
        state = grammar.start() if state.phase == Phase.ENDED else state
    assert len(phases) >= (10 if grammar.exact else 6)
    assert (Phase.TEMPO in phases) == ("bars" in options)


def test_a_bar_has_settings_of_its_own_and_no_others_where_there_are_none() -> None:
    config = GenerationConfig(temperature=1.0, top_p=1.0, by_kind={"bar": {"temperature": 0}})
    grammar = toy_tokenizer(bars=True).grammar
    order = TokenOrder(grammar)
    candidates = order.candidates(State(Phase.TEMPO))
    logits = logits_of(candidates)
    sampler = Sampler(order, config)
    sampled = [sampler.sample(logits.copy(), candidates, (i + 0.5) / DRAWS) for i in range(DRAWS)]
    bars = [token for token in sampled if grammar.kind_of[token] == Kind.BAR]
    ids = order.ids[candidates.low : candidates.high]
    is_bar = grammar.kind_of[ids] == Kind.BAR
    assert set(bars) == {int(ids[is_bar][logits[is_bar].argmax()])}
    weight = np.exp(logits.astype(float))
    assert abs(len(bars) / DRAWS - weight[is_bar].sum() / weight.sum()) < 3 / DRAWS, (
        "the probability of any bar is unchanged"
    )
    plain = frequencies(config, PITCHES, logits_of(ORDER.candidates(PITCHES)))
    assert np.array_equal(
        plain,
        frequencies(
            GenerationConfig(temperature=1.0, top_p=1.0), PITCHES, logits_of(ORDER.candidates(PITCHES))
        ),
    )
    small = Grammar(Vocabulary(reserved=377), False, np.zeros(4654, bool))
    assert TokenOrder(small).range_of((Kind.BAR,)) == (0, 0)


def test_logits_of_a_diverged_model_are_refused() -> None:
    candidates = ORDER.candidates(PITCHES)
    logits = np.full(candidates.high - candidates.low, np.nan, np.float32)
    for temperature in (0, 1):
        sampler = Sampler(ORDER, GenerationConfig(temperature=temperature))
        with pytest.raises(UserError, match="not finite numbers"):
            sampler.sample(logits.copy(), candidates, 0.5)
