"""`held="codes"`: what sounds on over a beat line is told by codes alone; without the option nothing is otherwise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer
from pianolm.music.cells import FRAMES, Cells, frames_to_cells, resolve_collisions
from pianolm.tokens.codebook import Codebook, Patterns
from pianolm.tokens.fit import complete, fit_codebook
from pianolm.tokens.grammar import Phase
from pianolm.tokens.tempo import TempoBins
from pianolm.tokens.vocabulary import Vocabulary
from tests.tokens.test_tokenizer import NOTHING, VOCABULARY, beat_times, corrupt, random_cells
from tests.tokens.test_velocity_segment import random_segment_codec

BEATS = 12
MODES = [
    (voiced, order, bars)
    for voiced in (False, True)
    for order in ("ascending", "descending")
    for bars in (False, True)
]
CODEC = random_segment_codec(64)


@cache
def codebook(name: str) -> Codebook:
    """One that has seen no music, one that knows what is asked of it, and a tiny one."""
    cells = random_cells(3, 20_000, 800)
    match name:
        case "untrained":
            return complete([NOTHING] * 3, VOCABULARY)
        case "fitted":
            return fit_codebook(cells.sustain, cells.onset, VOCABULARY, "frequency").codebook
        case _:
            return complete(
                [Patterns(cells.sustain[:5], cells.onset[:5]), NOTHING, NOTHING],
                Vocabulary(l1=16, l2=8, l3=4),
            )


@cache
def made(
    voiced: bool = False,
    order: str = "ascending",
    bars: bool = False,
    held: str = "codes",
    name: str = "untrained",
) -> PianoTokenizer:
    book = codebook(name)
    return PianoTokenizer(
        book,
        TempoBins(),
        CODEC if voiced else None,
        pitch_order=order,
        bars=bars,
        held=held,
        held_velocity=False,
    )


@pytest.fixture(params=MODES, ids=str)
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return made(*request.param)


@st.composite
def rolls(draw: st.DrawFn) -> Cells:
    """Few pitches, so that keys are struck again; ends and onsets often exactly on beat lines."""
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    frames = BEATS * FRAMES
    onset, length = rng.integers(0, frames, count), rng.integers(1, 5 * FRAMES, count)
    on_line, to_line = rng.random(count) < 0.4, rng.random(count) < 0.4
    onset[on_line] -= onset[on_line] % FRAMES
    end = onset + length
    end[to_line] = np.maximum(end[to_line] // FRAMES * FRAMES, onset[to_line] + 1)
    pitch = rng.choice([0, 60, 61, 64, 127], count).astype(np.uint8)
    velocity = rng.integers(1, 128, count).astype(np.uint8)
    return frames_to_cells(resolve_collisions(onset, end, pitch, velocity, frames)[0], BEATS)


@given(rolls(), st.sampled_from(MODES), st.sampled_from(["untrained", "fitted", "tiny"]))
@settings(max_examples=300, deadline=None)
def test_the_same_notes_come_back_as_with_cells(cells: Cells, mode: tuple, name: str) -> None:
    tokenizer, plain = made(*mode, name=name), made(*mode, held="cells", name=name)
    times, bars = beat_times(1, BEATS), np.arange(1, BEATS, 3)
    ids = tokenizer.encode_cells(cells, times, bars)
    assert tokenizer.grammar.first_problem(ids) is None
    assert tokenizer.grammar.is_complete(ids)
    piece, expected = tokenizer.decode(ids), plain.decode(plain.encode_cells(cells, times, bars))
    assert piece.skipped == 0
    assert np.array_equal(piece.notes, expected.notes)
    assert np.array_equal(piece.beats_sec, expected.beats_sec)
    assert np.array_equal(piece.bar_starts, expected.bar_starts)
    assert np.array_equal(piece.cells.sustain, cells.sustain)


def test_sampled_and_corrupted_sequences_agree_with_the_validator(tokenizer: PianoTokenizer) -> None:
    rng = np.random.default_rng(4)
    grammar, ids, state = tokenizer.grammar, [], tokenizer.grammar.start()
    while state.phase != Phase.ENDED:
        allowed = grammar.allowed(state)
        some = rng.integers(0, VOCABULARY.size, 10)
        assert [grammar.allows(state, token) for token in some.tolist()] == allowed[some].tolist()
        allowed = np.flatnonzero(allowed)
        if len(ids) < 1000:
            allowed = allowed[allowed != VOCABULARY.eos]
        kind = rng.choice(np.unique(VOCABULARY.kind_of[allowed]))
        ids.append(
            VOCABULARY.eos
            if VOCABULARY.eos in allowed
            else int(rng.choice(allowed[VOCABULARY.kind_of[allowed] == kind]))
        )
        state = grammar.advance(state, ids[-1])
    assert tokenizer.decode(ids).skipped == 0
    real = tokenizer.encode_cells(random_cells(8, 60, 6), beat_times(8, 6), np.array([0, 4]))
    for _ in range(400):
        broken = corrupt(real, rng)
        skipped = tokenizer.decode(broken).skipped
        if grammar.is_complete(broken):
            assert skipped == 0
        if grammar.first_problem(broken) is not None:
            assert skipped > 0
        tokenizer.decode(rng.integers(0, VOCABULARY.size, 40))
