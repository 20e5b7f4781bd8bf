"""The tokens of a prompt that the model continues from: beats, bars and ties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pianolm import PianoLM, Piece
from pianolm.errors import UserError
from pianolm.generation.prompts import prompt_ids, read_prompts
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import make_notes
from pianolm.tokenizer.ties import TIES
from pianolm.tokenizer.vocabulary import Kind
from tests.generation.tools import HOT, frames, join, toy_lm
from tests.music.toy_tracker import bass_tracker
from tests.tiny import composed
from tests.toy_lm import GOLDEN


@pytest.fixture(scope="module")
def lm() -> PianoLM:
    return toy_lm()


@pytest.fixture(scope="module")
def prompt() -> Piece:
    return Piece.from_midi(GOLDEN / "piece.mid")


def test_the_beats_of_a_prompt_are_estimated_by_the_tracker_given(tmp_path: Path) -> None:
    given = (f"prompt={GOLDEN / 'piece.mid'}", "generate.prompt_grid=estimate", f"data.tracker={tmp_path}")
    with pytest.raises(UserError, match=f"data.tracker={tmp_path}: no network.json"):
        read_prompts(composed(*given))
    bass_tracker().save(tmp_path)
    (prompt,) = read_prompts(composed(*given))
    assert prompt.piece.remarks.beat_confidence is not None


def test_what_a_model_would_not_learn_is_refused_before_it_is_trained() -> None:
    prompt, fill = f"prompt={GOLDEN / 'piece.mid'}", ("generate.mode=fill", "generate.fill=[1,2]")
    for given, sentence in (
        (
            (prompt, *fill),
            r"^generate.mode=fill found, .*: finetune.loader.fill_share=0; add .*=0.3, or give a model",
        ),
        (("generate.loudness=2", "tokenizer=base"), r"^generate.loudness=2 found with tokenizer.mode=base"),
        ((prompt, *fill, "generate.loudness=3"), r"^generate.loudness=3 found with generate.mode=fill"),
        (
            (prompt, "generate.mode=dynamics", "generate.loudness=2", "generate.density=3"),
            r"^generate.density=3 found with .*=dynamics",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            read_prompts(composed(*given))
    assert read_prompts(composed("generate.density=2", "tokenizer=base")) == []
    assert len(read_prompts(composed(prompt, *fill, "loader.fill_share=0.5"))) == 1


def test_prompt_beats_keeps_the_first_or_the_last_beats(lm: PianoLM, prompt: Piece) -> None:
    all_ids = lm.tokenizer.encode(prompt).ids
    for wanted, beats in (
        (3, slice(0, 3)),
        (-3, slice(-3, None)),
        (10_000, slice(None)),
        (-10_000, slice(None)),
    ):
        (generated,) = lm.generate_pieces(prompt, beats=2, prompt_beats=wanted, **HOT)
        kinds = lm.tokenizer.vocabulary.kind_of[generated.ids]
        given = generated.ids[: np.flatnonzero(kinds == Kind.TEMPO)[generated.prompt_beats]]
        assert generated.prompt_beats == len(range(prompt.n_beats)[beats])
        if wanted == -3:
            assert np.array_equal(given, all_ids[-given.size - 1 : -1])
        else:
            assert np.array_equal(given, all_ids[: given.size])
        assert generated.piece.n_beats > generated.prompt_beats
        assert generated.new_tokens == generated.ids.size - given.size
        assert generated.first_beat_seconds > 0


def test_a_prompt_has_its_bars_and_the_model_sets_those_of_new_beats(prompt: Piece) -> None:
    lm = toy_lm(bars=True)
    unknown = replace(prompt, downbeats_sec=None)
    for given in (prompt, unknown):
        for wanted in (None, 6, -6):
            new_bars = 0
            for generated in lm.generate_pieces(given, beats=12, pieces=16, prompt_beats=wanted, **HOT):
                kinds = lm.tokenizer.vocabulary.kind_of[generated.ids]
                new = np.flatnonzero(kinds == Kind.TEMPO)[generated.prompt_beats]
                bars = (kinds[:new] == Kind.BAR).sum()
                assert bars == (generated.prompt_beats if given is prompt else 0)
                assert lm.tokenizer.grammar.is_complete(generated.ids)
                new_bars += int((kinds[new:] == Kind.BAR).sum())
            assert new_bars > 0, "the model sets bars of its own"
    (piece,) = lm.generate(prompt, beats=3, prompt_beats=-6, **HOT)
    first = prompt.n_beats - 6
    last_bars = prompt.bar_starts[(prompt.bar_starts >= first) & (prompt.bar_starts < prompt.n_beats)]
    assert np.array_equal(piece.bar_starts[piece.bar_starts < 6], last_bars - first)


@pytest.mark.parametrize("prompt_beats", [-1, -3, -6, 5])
def test_beats_keep_their_position_in_the_bar_where_a_prompt_is_cut(prompt: Piece, prompt_beats: int) -> None:
    barred = replace(prompt, downbeats_sec=prompt.beats_sec[[0, 4, 8, 11, 14]])
    positions = []
    for ties in TIES:
        lm = toy_lm(bars=True, ties=ties)
        (generated,) = lm.generate_pieces(barred, beats=1, prompt_beats=prompt_beats, **HOT)
        given = generated.ids[: generated.ids.size - generated.new_tokens]
        positions.append(given[lm.tokenizer.vocabulary.kind_of[given] == Kind.BAR].tolist())
    assert positions[0] == positions[1] == positions[2]
    assert len(positions[0]) == abs(prompt_beats)


@pytest.mark.parametrize("mode", ["velocity", "base"])
@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("ties", ["implicit", "explicit"])
def test_ties_refer_to_the_notes_held_at_the_end_of_the_prompt(ties: str, mode: str, bars: bool) -> None:
    lm = toy_lm(mode, ties=ties, bars=bars)
    notes = make_notes([0, 0.2, 0.6, 1.1], [4, 0.4, 4, 4], [40, 50, 60, 64], [30, 60, 90, 120])
    prompt = Piece.from_notes(notes, BeatAnnotation(np.arange(9) * 0.5, np.arange(9) % 4 == 0))
    grammar = lm.tokenizer.grammar
    for wanted, given in ((None, prompt.n_beats), (5, 5), (-5, 5)):
        settings: dict[str, Any] = {"beats": 8, "prompt_beats": wanted, "seed": 3, **HOT}
        (generated,) = lm.generate_pieces(prompt, beats=8, prompt_beats=wanted, seed=3, **HOT)
        assert grammar.is_complete(generated.ids)
        assert (generated.piece.skipped, generated.prompt_beats) == (0, given)
        rest = generated.piece.from_beat(given)
        (without,) = lm.generate(prompt, with_prompt=False, **settings)
        assert frames(without) == frames(rest)
        if (
            mode == "velocity"
        ):  # otherwise notes held over have the prompt's velocities, and new ones have none
            assert np.array_equal(without.notes["velocity"], rest.notes["velocity"])
        joined = join(list(lm.stream(prompt, **settings)))
        assert np.array_equal(joined["pitch"], without.notes["pitch"])
        assert np.array_equal(joined["velocity"], without.notes["velocity"])
        assert np.allclose(joined["onset_sec"], without.notes["onset_sec"])
        first = np.flatnonzero(lm.tokenizer.vocabulary.kind_of[generated.ids] == Kind.TEMPO)[given]
        states = [grammar.start()]
        for token in generated.ids[: first + 1]:
            states.append(grammar.advance(states[-1], int(token)))
        assert states[-1].ties.pending.bit_count() == 3, "three pitches sound over the beat line"
    (fixed,) = lm.generate(prompt, beats=4, prompt_beats=5, tempo_bpm=77.0, seed=1, **HOT)
    assert np.allclose(np.diff(fixed.beats_sec[5:]), 60 / 77)


@pytest.mark.parametrize("ties", ["implicit", "explicit"])
def test_notes_held_into_the_last_beats_of_a_prompt_are_struck_there(ties: str) -> None:
    lm = toy_lm(ties=ties)
    notes = make_notes([0, 3.1], [4, 3.9], [40, 60], [30, 90])
    prompt = Piece.from_notes(notes, np.arange(9) * 0.5)
    (generated,) = lm.generate_pieces(prompt, beats=1, prompt_beats=-4, **HOT)
    notes = lm.tokenizer.decode(generated.ids).frame_notes
    assert (0, 40) in notes[["onset", "pitch"]].tolist()
    assert lm.tokenizer.vocabulary.kind_of[generated.ids[0]] == Kind.TEMPO, (
        "no BOS: the beats are from the middle of a piece"
    )


def test_a_chord_longer_than_the_context_is_refused(lm: PianoLM) -> None:
    keys = np.arange(40, 60)
    chord = Piece.from_notes(make_notes(keys * 0.0, keys * 0.0 + 0.4, keys, keys), np.arange(3) * 0.5)
    assert lm.generate(chord, beats=1)[0].n_beats > 2  # its last beat is silent
    with pytest.raises(UserError, match=r"its last beat has .* tokens, but the model's context is 48"):
        lm.generate(chord, beats=1, prompt_beats=1)


def constant(bpm: float, beats: int = 16) -> Piece:
    """A note on every beat of a constant tempo."""
    onset = np.arange(beats) * 60 / bpm
    return Piece.from_notes(
        make_notes(onset, onset + 0.2, 60 + np.arange(beats) % 12, np.full(beats, 64)),
        np.arange(beats + 1) * 60 / bpm,
    )


@pytest.mark.parametrize("bpm", [63.0, 74.0])
@pytest.mark.parametrize("wanted", [None, 9, -9])
@pytest.mark.parametrize("options", [{"ties": "explicit", "bars": True}, {}])
def test_a_prompt_of_constant_tempo_is_one_tempo_bin_of_its_own_tuning(
    options: dict[str, Any], wanted: int | None, bpm: float
) -> None:
    lm = toy_lm(tempo="log50_tuned", **options)
    vocabulary, tempo = lm.tokenizer.vocabulary, lm.tokenizer.tempo
    (generated,) = lm.generate_pieces(constant(bpm), beats=2, prompt_beats=wanted, tempo_bpm=None, **HOT)
    given = generated.ids[: generated.ids.size - generated.new_tokens]
    bins = given[vocabulary.kind_of[given] == Kind.TEMPO]
    assert bins.size == generated.prompt_beats
    assert np.unique(bins).size == 1
    (tuning,) = vocabulary.tuning_id(given) - np.array([vocabulary.offset(Kind.TUNING)])
    decoded_bpm = tempo.bpm_of_tuning[tuning, bins[0] - vocabulary.offset(Kind.TEMPO)]
    assert decoded_bpm == pytest.approx(bpm, rel=0.0024)
    assert (vocabulary.kind_of[generated.ids] == Kind.TUNING).sum() == 1
    assert generated.piece.skipped == 0
    assert np.diff(lm.tokenizer.decode(given).beats_sec) == pytest.approx(60 / decoded_bpm)


def test_the_tuning_is_that_of_the_beats_that_the_model_continues() -> None:
    lm = toy_lm(tempo="log50_tuned", ties="explicit", bars=True)
    beats_sec = np.concatenate([constant(63).beats_sec, 16 * 60 / 63 + np.arange(1, 13) * 60 / 74])
    notes = make_notes(beats_sec[:-1], beats_sec[:-1] + 0.2, np.full(28, 60), np.full(28, 64))
    prompt, best = Piece.from_notes(notes, beats_sec), lm.tokenizer.tempo.best_tuning
    first_tuning = lm.tokenizer.vocabulary.offset(Kind.TUNING)
    for wanted, bpm in ((8, 63), (-8, 74)):
        ids = prompt_ids(lm.tokenizer, prompt, wanted)
        expected = best(np.arange(9) * 60 / bpm)
        assert lm.tokenizer.vocabulary.tuning_id(ids) == [first_tuning + expected]
        assert lm.tokenizer.grammar.first_problem(ids) is None


@pytest.mark.parametrize("options", [{"ties": "explicit", "bars": True}, {}])
def test_new_beats_keep_the_tuning_of_the_prompt_without_it_and_in_a_stream(options: dict[str, Any]) -> None:
    lm = toy_lm(tempo="log50_tuned", **options)
    settings: dict[str, Any] = {"beats": 5, "seed": 3, "prompt_beats": -9, **HOT}
    (whole,) = lm.generate(constant(63), **settings)
    (new,) = lm.generate(constant(63), with_prompt=False, **settings)
    assert np.diff(new.beats_sec) == pytest.approx(np.diff(whole.beats_sec[9:]))
    streamed = [beat.end_sec - beat.start_sec for beat in lm.stream(constant(63), **settings)]
    assert streamed == pytest.approx(np.diff(new.beats_sec).tolist())
