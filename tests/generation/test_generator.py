"""Generation: cached logits equal the full forward pass, all tokens are allowed, seeds decide, the context refills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from pianolm.generation.config import GenerationConfig
from pianolm.generation.engine.base import Engine
from pianolm.generation.generator import BATCH_SIZE, Generator
from pianolm.generation.state import GenerationState
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind
from tests.toy_lm import CONTEXT, LAYOUTS, toy_llama, toy_tokenizer

TOLERANCE = 1e-4
TOKENIZER = toy_tokenizer()
GRAMMAR, VOCABULARY = TOKENIZER.grammar, TOKENIZER.vocabulary
HOT = GenerationConfig(temperature=2.0, top_p=1.0, beats=6)


def hot(**changes: Any) -> GenerationConfig:
    return GenerationConfig(**{"temperature": 2.0, "top_p": 1.0, "beats": 6, **changes})


def toy_generator(**changes: Any) -> Generator:
    return Generator(toy_llama(VOCABULARY, **changes), GRAMMAR, TOKENIZER.tempo)


def prompts() -> list[np.ndarray]:
    tempo, pitch, velocity = (VOCABULARY.offset(kind) for kind in (Kind.TEMPO, Kind.PITCH, Kind.VELOCITY))
    cells = [(pitch + 60, 3, velocity), (pitch + 64, 9, velocity + 5), (pitch + 50, 7, velocity)]
    long = [VOCABULARY.bos, tempo + 20, *cells[0], *cells[1], tempo + 30, *cells[2]]
    return [np.array([VOCABULARY.bos]), np.array(long), np.array([*long, VOCABULARY.eos])[8:]]


def states_of(prompt_ids: list[np.ndarray], seeds: list[int]) -> list[GenerationState]:
    return [GenerationState(GRAMMAR, ids, seed, CONTEXT) for ids, seed in zip(prompt_ids, seeds, strict=True)]


def generate(
    generator: Generator, states: list[GenerationState], config: GenerationConfig = HOT
) -> list[list[int]]:
    for _ in generator.generate(states, config):
        pass
    return [state.ids for state in states]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("kind", [{}, {"num_key_value_heads": 2, "tie_word_embeddings": False}])
def test_tokens_are_sampled_from_the_logits_of_the_full_forward_pass(
    kind: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the cache is filled again, over the tokens that it holds."""
    generator, model = toy_generator(**kind), toy_llama(VOCABULARY, **kind)
    errors, refilled, original = [], 0, Generator._sample

    def spy(
        self: Generator, engine: Engine, states: Mapping[int, GenerationState], *settings: Any
    ) -> dict[int, int]:
        nonlocal refilled
        logits_NV = engine.logits(list(states), 0, VOCABULARY.size)
        for (row, state), logits_V in zip(states.items(), logits_NV, strict=True):
            visible = state.ids[-engine.lengths[row] :]
            with torch.inference_mode():
                full = model(input_ids=torch.tensor([visible]), logits_to_keep=1).logits[0, -1].numpy()
            errors.append(np.abs(full[self.order.ids] - logits_V).max())
            if len(visible) < len(state.ids):
                refilled += 1
                assert len(visible) >= CONTEXT // 2
        return original(self, engine, states, *settings)

    monkeypatch.setattr(Generator, "_sample", spy)
    states = states_of([prompts()[n % 3] for n in range(rows)], list(range(1, rows + 1)))
    generate(generator, states, hot(beats=20 if rows > 1 else 40))
    assert len(errors) > 80
    assert refilled > 20
    assert max(errors) < TOLERANCE


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_an_untrained_model_generates_only_complete_pieces(mode: str, options: dict[str, Any]) -> None:
    tokenizer = toy_tokenizer(mode, **options)
    generator = Generator(toy_llama(tokenizer.vocabulary), tokenizer.grammar, tokenizer.tempo)
    start = np.array([tokenizer.vocabulary.bos])
    states = [GenerationState(tokenizer.grammar, start, seed, CONTEXT) for seed in range(10)]
    for ids in generate(generator, states, hot(beats=24)):
        assert tokenizer.grammar.is_complete(ids)
        assert tokenizer.decode(ids).skipped == 0
    assert max(len(state.ids) for state in states) > 2 * CONTEXT
    bars = sum(int((tokenizer.vocabulary.kind_of[state.ids] == Kind.BAR).sum()) for state in states)
    assert (bars > 0) == ("bars" in options)


def test_prompts_are_kept_and_new_music_begins_with_a_beat() -> None:
    states = states_of(prompts(), [1, 2, 3])
    for ids, prompt, state in zip(generate(toy_generator(), states), prompts(), states, strict=True):
        kept = prompt[prompt != VOCABULARY.eos].tolist()
        assert ids[: len(kept)] == kept
        assert VOCABULARY.kind_of[ids[len(kept)]] == Kind.TEMPO
        assert state.prompt_beats == sum(VOCABULARY.kind_of[kept] == Kind.TEMPO)
        assert state.new_beats + state.prompt_beats == len(state.beat_starts)


def test_a_seed_gives_its_piece_whatever_is_generated_beside_it() -> None:
    n_pieces = BATCH_SIZE["cpu"] + 5  # some are queued
    generator, seeds = toy_generator(), list(range(100, 100 + n_pieces))
    together = generate(generator, states_of([prompts()[n % 3] for n in range(n_pieces)], seeds))
    for n in (0, 1, 7, n_pieces - 1):
        assert generate(generator, states_of([prompts()[n % 3]], [seeds[n]])) == [together[n]]
    assert len({tuple(ids) for ids in together}) == n_pieces


def test_a_piece_ends_after_its_beats_or_seconds_or_by_itself() -> None:
    generator = toy_generator()
    states = states_of([prompts()[1]] * 12, list(range(12)))
    generate(generator, states, hot(beats=20))
    assert max(state.new_beats for state in states) == 20
    assert min(state.new_beats for state in states) < 20, "the model ends some pieces"
    timed = states_of([prompts()[1]] * 12, list(range(12)))
    generate(generator, timed, hot(seconds=2.5))
    full = [state for state in timed if state.new_seconds >= 2.5]
    assert len(full) > 2
    for state in full:
        new_sec = TOKENIZER.decode(state.ids[state.prompt_tokens :]).beats_sec
        assert state.new_seconds == pytest.approx(new_sec[-1])
        assert new_sec[-2] < 2.5


def test_each_new_beat_is_reported_once_and_when_it_is_complete() -> None:
    states = states_of([prompts()[1]] * 5, list(range(5)))
    reported = dict.fromkeys(range(5), 0)
    for index in toy_generator().generate(states, hot(beats=4)):
        reported[index] += 1
        piece = TOKENIZER.decode(states[index].ids[states[index].prompt_tokens : -1])
        assert (piece.n_beats, piece.skipped) == (reported[index], 0)
    assert reported == {index: state.new_beats for index, state in enumerate(states)}


def test_a_fixed_tempo_is_the_nearest_token_and_counts_exactly() -> None:
    states = states_of([prompts()[1]] * 6, list(range(6)))
    generate(toy_generator(), states, hot(tempo_bpm=100))
    nearest = VOCABULARY.offset(Kind.TEMPO) + np.abs(TOKENIZER.tempo.bpm / 100 - 1).argmin()
    for state in states:
        new = np.array(state.ids[state.prompt_tokens :])
        assert set(new[VOCABULARY.kind_of[new] == Kind.TEMPO]) == {nearest}
        assert state.new_seconds == pytest.approx(0.6 * state.new_beats)


@pytest.mark.parametrize("bars", [False, True])
def test_after_a_prompt_that_ends_with_a_tempo_new_music_begins_with_the_next_beat(bars: bool) -> None:
    """Even where a bar or a pitch, which may follow that tempo, is more likely."""
    tokenizer = toy_tokenizer(bars=bars)
    tempo = tokenizer.vocabulary.offset(Kind.TEMPO)
    generator = Generator(toy_llama(tokenizer.vocabulary), tokenizer.grammar, tokenizer.tempo)
    prompt = np.array([tokenizer.vocabulary.bos, tempo + 20, tempo + 21])
    for seed in range(12):
        state = GenerationState(tokenizer.grammar, prompt, seed, CONTEXT)
        (ids,) = generate(generator, [state], hot(beats=2))
        assert ids[: prompt.size] == prompt.tolist()
        assert tokenizer.vocabulary.kind_of[ids[prompt.size]] == Kind.TEMPO
        assert tokenizer.grammar.is_complete(ids)


def test_a_prompt_longer_than_the_context_is_continued_from_its_last_beats() -> None:
    tempo, pitch, velocity = (VOCABULARY.offset(kind) for kind in (Kind.TEMPO, Kind.PITCH, Kind.VELOCITY))
    ids = [VOCABULARY.bos, tempo]
    for key in range(30, 60):
        ids += [pitch + key, 0, velocity]
    (state,) = states_of([np.array([*ids, tempo])], [0])
    assert len(generate(toy_generator(), [state])[0]) > len(ids) > CONTEXT


def tuned_generator() -> Generator:
    tokenizer = toy_tokenizer(ties="explicit", bars=True, tempo="log50_tuned")
    return Generator(toy_llama(tokenizer.vocabulary), tokenizer.grammar, tokenizer.tempo)


@pytest.mark.parametrize("bpm", [15.0, 63.0, 74.0, 480.0])
def test_a_fixed_tempo_takes_the_tuning_that_has_it_and_behind_a_prompt_that_of_the_prompt(
    bpm: float,
) -> None:
    generator, tempo = tuned_generator(), TempoBins("log50_tuned")
    first, first_tuning = VOCABULARY.offset(Kind.TEMPO), VOCABULARY.offset(Kind.TUNING)
    fresh = np.array([VOCABULARY.bos])
    prompt = np.array([VOCABULARY.bos, first_tuning + 3, first + 20])
    for ids, nearest in ((fresh, 0.0024), (prompt, 0.06)):
        state = GenerationState(generator.grammar, ids, 0, CONTEXT)
        generate(generator, [state], hot(tempo_bpm=bpm, beats=6))
        new = np.array(state.ids[ids.size :])
        bins = new[VOCABULARY.kind_of[new] == Kind.TEMPO] - first
        assert generator.grammar.is_complete(state.ids)
        assert VOCABULARY.tuning_id(state.ids) == [first_tuning + state.tuning]
        assert state.tuning == 3 or ids is fresh
        assert tempo.bpm_of_tuning[state.tuning, bins] == pytest.approx(bpm, rel=nearest)
        assert np.unique(bins).size == 1
        assert state.new_seconds == pytest.approx(60 / bpm * state.new_beats)


def test_seconds_of_new_beats_are_counted_on_the_tuned_scale() -> None:
    generator, tempo = tuned_generator(), TempoBins("log50_tuned")
    states = [
        GenerationState(generator.grammar, np.array([VOCABULARY.bos]), seed, CONTEXT) for seed in range(12)
    ]
    generate(generator, states, hot(seconds=2.5))
    assert len({state.tuning for state in states}) > 3, "sampled"
    for state in states:
        ids = np.array(state.ids)
        bins = ids[VOCABULARY.kind_of[ids] == Kind.TEMPO] - VOCABULARY.offset(Kind.TEMPO)
        assert state.new_seconds == pytest.approx(tempo.decode(bins, 0, state.tuning)[-1])


def test_the_cache_is_filled_again_behind_the_tuning_where_beats_are_dropped() -> None:
    class Recorder:
        rows: dict[int, list[int]]

        def clear(self, row: int) -> None:
            self.rows = {row: []}

        def extend(self, row: int, ids: list[int]) -> None:
            self.rows[row] += ids

    generator, tuning = tuned_generator(), VOCABULARY.offset(Kind.TUNING) + 7
    tempo, pitch, velocity = (VOCABULARY.offset(kind) for kind in (Kind.TEMPO, Kind.PITCH, Kind.VELOCITY))
    ids, starts = [VOCABULARY.bos, tuning], []
    for beat in range(20):
        starts.append(len(ids))
        ids += [tempo + beat, pitch + 60, 0, velocity]
    engine = Recorder()
    generator.refill(engine, 0, ids[:40], starts[:10])  # type: ignore[arg-type]  # what refill uses of an engine
    assert engine.rows[0] == ids[:40], "all of it fits"
    generator.refill(engine, 0, ids, starts)  # type: ignore[arg-type]
    assert engine.rows[0][0] == tuning
    assert engine.rows[0][1:] == ids[-len(engine.rows[0]) + 1 :]
    assert VOCABULARY.kind_of[engine.rows[0][1]] == Kind.TEMPO
    assert CONTEXT // 2 <= len(engine.rows[0]) <= CONTEXT


def test_published_bins_outside_a_beat_grid_are_never_sampled() -> None:
    tokenizer = toy_tokenizer(exact=False, tempo="published")
    generator = Generator(toy_llama(tokenizer.vocabulary), tokenizer.grammar, tokenizer.tempo)
    start = np.array([VOCABULARY.bos])
    states = [GenerationState(tokenizer.grammar, start, seed, CONTEXT) for seed in range(60)]
    bpm = []
    for ids in generate(generator, states, hot(beats=12, temperature=20.0)):
        tempi = np.array(ids)[VOCABULARY.kind_of[ids] == Kind.TEMPO] - VOCABULARY.offset(Kind.TEMPO)
        bpm += tokenizer.tempo.bpm[tempi].tolist()
    assert (min(bpm), max(bpm)) == (15, 475)
    assert len(set(bpm)) > 40
