"""Bars of generated pieces, and the notes of streamed beats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pianolm import PianoLM, Piece
from pianolm.generation.results import GeneratedBeat
from pianolm.tokenizer.vocabulary import Kind
from tests.generation.tools import HOT, join, toy_lm
from tests.toy_lm import GOLDEN


@pytest.fixture(scope="module")
def lm() -> PianoLM:
    return toy_lm()


@pytest.fixture(scope="module")
def prompt() -> Piece:
    return Piece.from_midi(GOLDEN / "piece.mid")


@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize(("prompt_beats", "bars"), [(None, 1), (7, 1), (-7, None)])
def test_known_bars_continue_at_the_length_of_the_last(
    lm: PianoLM, prompt: Piece, prompt_beats: int | None, bars: int | None, with_prompt: bool
) -> None:
    """Bars of three beats after an upbeat of one."""
    barred = replace(prompt, downbeats_sec=prompt.beats_sec[1::3])
    (piece,) = lm.generate(barred, beats=9, prompt_beats=prompt_beats, with_prompt=with_prompt, seed=1, **HOT)
    given = min(prompt.n_beats, abs(prompt_beats or prompt.n_beats))
    first = 1 if bars else (1 - (prompt.n_beats - given)) % 3
    expected = np.arange(first, given + 10, 3) - (0 if with_prompt else given)
    found = np.searchsorted(piece.beats_sec, piece.downbeats_sec)
    assert found.tolist() == [bar for bar in expected.tolist() if 0 <= bar <= piece.n_beats]
    unbarred = replace(prompt, downbeats_sec=None)
    assert lm.generate(unbarred, beats=2, seed=1)[0].downbeats_sec is None


def test_bars_stay_on_their_beats_with_a_fixed_tempo_and_without_the_prompt(prompt: Piece) -> None:
    lm = toy_lm(bars=True)
    settings: dict[str, Any] = {"beats": 16, "tempo_bpm": 100, "prompt_beats": 5, **HOT}
    n_bars = seed = 0
    while n_bars < 2 and seed < 100:
        seed += 1
        (with_it,) = lm.generate(prompt, seed=seed, **settings)
        (without,) = lm.generate(prompt, with_prompt=False, seed=seed, **settings)
        assert np.array_equal(with_it.bar_starts[with_it.bar_starts >= 5] - 5, without.bar_starts)
        assert np.allclose(without.beats_sec[without.bar_starts], without.bar_starts * 0.6)
        n_bars += without.bar_starts.size
    assert n_bars >= 2
    beats = list(lm.stream(prompt, seed=seed, **settings))
    assert len(beats) == without.n_beats
    assert np.array_equal(join(beats)["pitch"], without.notes["pitch"])


def test_beats_say_which_notes_are_held_over(lm: PianoLM, prompt: Piece) -> None:
    """Each beat is made from the tokens up to its end."""
    ids = lm.tokenizer.encode(prompt).ids
    ends = np.flatnonzero(np.isin(lm.tokenizer.vocabulary.kind_of[ids], [Kind.TEMPO, Kind.EOS]))[1:]
    beats = [
        GeneratedBeat.from_piece(lm.tokenizer.decode(ids[:end]), number) for number, end in enumerate(ends)
    ]
    piece = lm.tokenizer.decode(ids)
    joined = join(beats)
    assert sum(int(beat.held.sum()) for beat in beats) > 5
    assert np.array_equal(joined["pitch"], piece.notes["pitch"])
    assert np.array_equal(joined["velocity"], piece.notes["velocity"])
    assert np.allclose(joined["onset_sec"], piece.notes["onset_sec"])
    assert np.allclose(joined["offset_sec"], piece.notes["offset_sec"])
