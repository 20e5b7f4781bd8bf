"""New velocities for given notes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from pianolm import PianoLM, Piece
from pianolm.generation.config import GenerationConfig
from pianolm.generation.dynamics import render_ids
from pianolm.music.cells import seconds_to_frames
from pianolm.music.notes import make_notes
from pianolm.tokenizer.vocabulary import Kind
from tests.generation.tools import pieces, toy_lm
from tests.toy_lm import CONTEXT, GOLDEN, LAYOUTS


@pytest.fixture(scope="module")
def prompt() -> Piece:
    return Piece.from_midi(GOLDEN / "piece.mid")


@pytest.fixture(scope="module")
def toy() -> PianoLM:
    return toy_lm()


def of_one_velocity(piece: Piece) -> Piece:
    notes = piece.notes.copy()
    notes["velocity"] = 64
    flat = replace(Piece.from_notes(notes, piece.beats_sec), downbeats_sec=piece.downbeats_sec)
    assert flat.flat
    return flat


def check_notes_kept(lm: PianoLM, flat: Piece, temperature: float) -> Piece:
    assert lm.tokenizer.encode(flat).ids.size > 2 * CONTEXT
    lively = lm.render_dynamics(flat, temperature=temperature, top_p=1.0, seed=1, language_model=True)
    assert lively.skipped == 0
    for field in ("onset_sec", "offset_sec", "pitch"):
        assert np.array_equal(lively.notes[field], flat.notes[field])
    assert np.array_equal(lively.beats_sec, flat.beats_sec)
    assert np.array_equal(lively.bar_starts, flat.bar_starts)
    assert np.unique(lively.notes["velocity"]).size > (1 if temperature == 0 else 5)
    return lively


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 2.0])
@pytest.mark.parametrize("name", ["piece", "dense"])
def test_dynamics_keep_every_note(name: str, temperature: float, options: dict[str, Any]) -> None:
    """Also where the piece is longer than the context; which tokens are written is the same at any temperature."""
    check_notes_kept(toy_lm(**options), of_one_velocity(Piece.from_midi(GOLDEN / f"{name}.mid")), temperature)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_the_given_velocities_are_ignored(temperature: float, toy: PianoLM, prompt: Piece) -> None:
    lively = check_notes_kept(toy, of_one_velocity(prompt), temperature)
    again = toy.render_dynamics(prompt, temperature=temperature, top_p=1.0, seed=1, language_model=True)
    assert np.array_equal(again.notes["velocity"], lively.notes["velocity"])


def test_velocities_depend_on_earlier_new_velocities_only(prompt: Piece) -> None:
    """With temperature 0 each velocity is the most likely one of a full forward pass over the tokens before it."""
    lm = toy_lm(context=4096)
    ids = render_ids(lm.generator, lm.tokenizer, prompt, GenerationConfig(temperature=0), 0)
    block = lm.tokenizer.vocabulary.ids(Kind.VELOCITY)
    at = np.flatnonzero(lm.tokenizer.vocabulary.kind_of[ids] == Kind.VELOCITY)
    struck = lm.tokenizer.decode(ids).cells.onset != 0
    with torch.inference_mode():
        logits_TV = lm.model(input_ids=torch.tensor(ids[None])).logits[0].numpy()
    likely = logits_TV[at - 1, block].argmax(axis=1) + block.start
    assert struck.sum() > 20
    assert np.array_equal(ids[at][struck], likely[struck])


def test_a_held_note_repeats_its_velocity_in_the_tokens() -> None:
    lm = toy_lm()
    notes = make_notes([0, 0.1, 2.6], [2.4, 1.2, 3], [60, 67, 60], [64, 64, 64])
    piece = Piece.from_notes(notes, np.arange(8) * 0.5)
    ids = render_ids(lm.generator, lm.tokenizer, piece, GenerationConfig(temperature=2.0), 3)
    cells = lm.tokenizer.decode(ids).cells
    codes = ids[lm.tokenizer.vocabulary.kind_of[ids] == Kind.VELOCITY]
    velocities = lm.tokenizer.codec.decode(
        codes - lm.tokenizer.vocabulary.offset(Kind.VELOCITY), cells.sustain, cells.onset
    )
    low = velocities[np.repeat(cells.pitch, cells.segment_count) == 60]
    assert low.size == 6
    assert np.unique(low[:5]).size == 1


@given(pieces())
@settings(max_examples=30)
def test_dynamics_change_velocities_and_nothing_else(toy: PianoLM, piece: Piece) -> None:
    lively = toy.render_dynamics(piece, temperature=2.0, seed=1, language_model=True)
    for field in ("onset_sec", "offset_sec", "pitch"):
        assert np.array_equal(lively.notes[field], piece.notes[field])
    assert np.array_equal(lively.beats_sec, piece.beats_sec)
    assert np.array_equal(lively.bar_starts, piece.bar_starts)
    assert (lively.flat, lively.skipped) == (False, 0)
    frame_velocity = {(n["pitch"], n["onset"]): n["velocity"] for n in lively.frame_notes}
    onset = seconds_to_frames(piece.notes["onset_sec"], piece.beats_sec)
    for frame, note in zip(onset, lively.notes, strict=True):
        assert note["velocity"] == frame_velocity[note["pitch"], frame], (
            "notes of one frame have one velocity"
        )
