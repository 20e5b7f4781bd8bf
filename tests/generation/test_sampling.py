"""Draws follow the probabilities that are asked for, from one number each, among what the grammar allows."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.generation.sampling import Choice, Drawer, Places, Sampling
from pianolm.tokenizer.grammar import Grammar, Phase, State
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.toy_lm import toy_tokenizer

GRAMMAR = toy_tokenizer().grammar
PLACES = Places(GRAMMAR)
VOCABULARY = GRAMMAR.vocabulary
DRAWS = 5_000
PITCHES = State(Phase.BEAT, 59)
"""Where a pitch above 59, a tempo or EOS may come."""


def logits_of(choice: Choice, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, choice.high - choice.low).astype(np.float32)


def frequencies(sampling: Sampling, state: State, logits: np.ndarray) -> np.ndarray:
    """[V] how often each id is drawn, over numbers evenly spread."""
    drawer, choice = Drawer(PLACES, sampling), PLACES.choice(state)
    drawn = [drawer.draw(logits.copy(), choice, (i + 0.5) / DRAWS) for i in range(DRAWS)]
    return np.bincount(drawn, minlength=VOCABULARY.size) / DRAWS


def expected(logits: np.ndarray, state: State, temperature: float, kept: int | None = None) -> np.ndarray:
    """[V] softmax over what is allowed, or over the `kept` most likely of it."""
    choice = PLACES.choice(state)
    ids = PLACES.order[choice.low : choice.high]
    weight = np.where(GRAMMAR.allowed(state)[ids], np.exp(logits.astype(float) / temperature), 0)
    if kept is not None:
        weight[np.argsort(-weight)[kept:]] = 0
    probability = np.zeros(VOCABULARY.size)
    probability[ids] = weight / weight.sum()
    return probability


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = logits_of(PLACES.choice(PITCHES))
    found = frequencies(Sampling(temperature, top_p=1.0), PITCHES, logits)
    assert np.abs(found - expected(logits, PITCHES, temperature)).max() < 2 / DRAWS


def test_top_k_top_p_and_min_p_cut_where_they_say() -> None:
    logits = logits_of(PLACES.choice(PITCHES))
    plain = np.sort(expected(logits, PITCHES, 1.0))[::-1]
    of_p = int(np.searchsorted(plain.cumsum(), 0.8)) + 1
    of_min = int((plain >= 0.05 * plain[0]).sum())
    twelve = plain[:12] / plain[:12].sum()
    of_both = int(np.searchsorted(twelve.cumsum(), 0.8)) + 1
    cuts = {
        of_p: Sampling(1.0, top_p=0.8),
        of_min: Sampling(1.0, top_p=1.0, min_p=0.05),
        12: Sampling(1.0, top_p=1.0, top_k=12),
        of_both: Sampling(1.0, top_p=0.8, top_k=12),
    }
    assert len(cuts) == 4
    for kept, sampling in cuts.items():
        found = frequencies(sampling, PITCHES, logits)
        assert np.abs(found - expected(logits, PITCHES, 1.0, kept)).max() < 2 / DRAWS
        assert (found > 0).sum() == kept


def test_temperature_zero_and_top_k_one_take_the_most_likely() -> None:
    logits = logits_of(PLACES.choice(PITCHES))
    greedy = frequencies(Sampling(0), PITCHES, logits)
    assert greedy.max() == 1
    assert greedy.argmax() == expected(logits, PITCHES, 1.0).argmax()
    assert np.array_equal(frequencies(Sampling(top_k=1), PITCHES, logits), greedy)
    assert np.array_equal(frequencies(Sampling(1e-30), PITCHES, logits), greedy)


def test_settings_of_a_kind_leave_the_kinds_alone_and_change_what_is_drawn_of_it() -> None:
    logits = logits_of(PLACES.choice(PITCHES))
    plain = expected(logits, PITCHES, 1.0)
    sampling = Sampling(1.0, top_p=1.0, by_kind={"tempo": {"temperature": 0}, "pitch": {"top_k": 2}})
    found = frequencies(sampling, PITCHES, logits)
    for kind, ids in (("tempo", 1), ("pitch", 2), ("eos", 1)):
        of_kind = VOCABULARY.kind_of == Kind[kind.upper()]
        assert abs(found[of_kind].sum() - plain[of_kind].sum()) < 3 / DRAWS
        assert (found[of_kind] > 0).sum() == ids
        assert found[of_kind].argmax() == plain[of_kind].argmax()
    two = np.sort(plain[VOCABULARY.ids(Kind.PITCH)])[-2:]
    drawn = np.sort(found[VOCABULARY.ids(Kind.PITCH)])[-2:]
    assert np.allclose(drawn / drawn.sum(), two / two.sum(), atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"held_velocity": False, "pitch_order": "descending"},
        {"bars": True},
        {"held": "codes"},
        {"held": "codes", "pitch_order": "descending", "bars": True},
        {"held": "ages"},
        {"held": "ages", "pitch_order": "descending", "bars": True},
    ],
)
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_a_choice_is_what_the_grammar_allows_in_every_state_on_the_way(
    mode: str, options: dict[str, object]
) -> None:
    grammar = toy_tokenizer(mode, **options).grammar
    places, random = Places(grammar), np.random.default_rng(0)
    drawer = Drawer(places, Sampling(2.0, top_p=1.0))
    state, phases = grammar.start(), set()
    for _ in range(600):
        phases.add(state.phase)
        choice = places.choice(state)
        may = np.delete(places.order[choice.low : choice.high], choice.forbidden)
        assert np.array_equal(np.sort(may), np.flatnonzero(grammar.allowed(state)))
        logits = random.normal(0, 3, choice.high - choice.low).astype(np.float32)
        state = grammar.advance(state, drawer.draw(logits, choice, random.random()))
        state = grammar.start() if state.phase == Phase.ENDED else state
    assert len(phases) >= 10
    assert (Phase.TEMPO in phases) == ("bars" in options)


def test_a_bar_has_settings_of_its_own_and_no_others_where_there_are_none() -> None:
    sampling = Sampling(1.0, top_p=1.0, by_kind={"bar": {"temperature": 0}})
    grammar = toy_tokenizer(bars=True).grammar
    places, behind_tempo = Places(grammar), State(Phase.TEMPO)
    choice = places.choice(behind_tempo)
    logits = logits_of(choice)
    drawer = Drawer(places, sampling)
    drawn = [drawer.draw(logits.copy(), choice, (i + 0.5) / DRAWS) for i in range(DRAWS)]
    bars = [token for token in drawn if grammar.kind_of[token] == Kind.BAR]
    ids = places.order[choice.low : choice.high]
    is_bar = grammar.kind_of[ids] == Kind.BAR
    assert set(bars) == {int(ids[is_bar][logits[is_bar].argmax()])}
    weight = np.exp(logits.astype(float))
    assert abs(len(bars) / DRAWS - weight[is_bar].sum() / weight.sum()) < 3 / DRAWS, (
        "that one comes stays as likely"
    )
    plain = frequencies(sampling, PITCHES, logits_of(PLACES.choice(PITCHES)))
    assert np.array_equal(
        plain, frequencies(Sampling(1.0, top_p=1.0), PITCHES, logits_of(PLACES.choice(PITCHES)))
    )
    small = Grammar(Vocabulary(reserved=377), False, np.zeros(4654, bool))
    assert Places(small).span((Kind.BAR,)) == (0, 0)


def test_logits_of_a_diverged_model_are_refused() -> None:
    choice = PLACES.choice(PITCHES)
    logits = np.full(choice.high - choice.low, np.nan, np.float32)
    for temperature in (0, 1):
        with pytest.raises(UserError, match="not numbers"):
            Drawer(PLACES, Sampling(temperature)).draw(logits.copy(), choice, 0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_k": -2}, "top_k=-2"),
        ({"min_p": 2}, "min_p=2"),
        ({"by_kind": {"tempi": {}}}, "'tempi' found, expected one of tempo, pitch, pattern, velocity"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"by_kind": {"tempo": 0.7}}, "by_kind.tempo=0.7 found, expected settings"),
        ({"by_kind": {"tempo": {"heat": 1}}}, "by_kind.tempo: unknown heat"),
        ({"by_kind": {"tempo": {"top_p": 2}}}, "by_kind.tempo: top_p=2"),
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Sampling(**wrong)  # type: ignore[arg-type]
