"""The state of a piece while it is generated, and the tokens that the model sees."""

from __future__ import annotations

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.generation.state import GenerationState, window_start
from pianolm.tokenizer.vocabulary import Kind
from tests.toy_lm import CONTEXT, toy_tokenizer


def test_a_window_holds_whole_beats_that_fill_half_the_context() -> None:
    beat_starts = list(range(1, 200, 7))
    assert window_start(48, beat_starts, 48) == 0
    for n_tokens in range(49, 200):
        start = window_start(n_tokens, [start for start in beat_starts if start < n_tokens], 48)
        assert start in beat_starts
        assert 24 <= n_tokens - start < 24 + 7


def test_a_window_of_long_beats_holds_what_fits() -> None:
    assert window_start(60, [1, 20, 50], 48) == 20, "most of the beats that fit"
    assert window_start(60, [1, 50], 48) == 50, "the only whole beat, less than half the context"
    assert window_start(80, [1], 48) == 56, "one beat that is longer than the context"


def test_a_prompt_whose_last_beat_is_longer_than_the_context_is_refused() -> None:
    tokenizer = toy_tokenizer()
    tempo, pitch, velocity = (
        tokenizer.vocabulary.offset(kind) for kind in (Kind.TEMPO, Kind.PITCH, Kind.VELOCITY)
    )
    ids = [tokenizer.vocabulary.bos, tempo]
    for key in range(30, 60):
        ids += [pitch + key, 0, velocity]
    message = r"^mine: its last beat has 91 tokens, but the model's context is 48 .* fewer notes"
    with pytest.raises(UserError, match=message):
        GenerationState(tokenizer.grammar, np.array(ids), 0, CONTEXT, "mine")
    with_next_beat = GenerationState(tokenizer.grammar, np.array([*ids, tempo]), 0, CONTEXT)
    assert (with_next_beat.prompt_beats, with_next_beat.prompt_tokens) == (2, 93)
