"""`PianoLM`: anew, on from a prompt, beat by beat, dynamics for given notes; what cannot be done is one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pianolm import PianoLM, Piece
from pianolm.errors import UserError
from pianolm.generation.dynamics import render_ids
from pianolm.generation.sampling import Sampling
from pianolm.generation.takes import Beat
from pianolm.music.beats import BeatAnnotation
from pianolm.music.notes import Notes, make_notes
from pianolm.tokenizer.tokenizer import HELD
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.toy_lm import CONTEXT, GOLDEN, toy_llama, toy_tokenizer

HOT: dict[str, Any] = {"temperature": 2.0, "top_p": 1.0}


def toy_lm(mode: str = "velocity", context: int = CONTEXT, **options: Any) -> PianoLM:
    tokenizer = toy_tokenizer(mode, **options)
    return PianoLM(toy_llama(tokenizer.vocabulary, max_position_embeddings=context), tokenizer)


@pytest.fixture(scope="module")
def lm() -> PianoLM:
    return toy_lm()


@pytest.fixture(scope="module")
def prompt() -> Piece:
    return Piece.from_midi(GOLDEN / "piece.mid")


def frames(piece: Piece, beats: slice = slice(None)) -> list[tuple[int, ...]]:
    """Onset, end and pitch of the notes that begin in some beats."""
    first, last, _ = beats.indices(piece.n_beats)
    notes = piece.frame_notes
    notes = notes[(notes["onset"] >= first * 48) & (notes["onset"] < last * 48)]
    return [(int(n["onset"]) - first * 48, int(n["end"]) - first * 48, int(n["pitch"])) for n in notes]


def same(a: Piece, b: Piece) -> bool:
    return np.array_equal(a.notes, b.notes) and np.array_equal(a.beats_sec, b.beats_sec)


def test_a_seed_gives_its_pieces_and_the_first_of_many_is_the_only_one(lm: PianoLM) -> None:
    three, again, one, other = (
        lm.generate(beats=5, pieces=pieces, seed=seed, **HOT)
        for pieces, seed in ((3, 4), (3, 4), (1, 4), (1, 5))
    )
    assert all(same(a, b) for a, b in zip(three, again, strict=True))
    assert same(three[0], one[0])
    assert not same(three[0], other[0])
    assert not same(three[0], three[1])
    assert {piece.n_beats for piece in three} <= set(range(1, 6))


def test_a_prompt_stands_at_the_beginning_or_not_at_all(lm: PianoLM, prompt: Piece) -> None:
    held = lm.tokenizer.decode(lm.tokenizer.encode(prompt).ids)
    (with_it,) = lm.generate(prompt, beats=4, seed=1, **HOT)
    (without,) = lm.generate(prompt, beats=4, seed=1, with_prompt=False, **HOT)
    n = prompt.n_beats
    assert with_it.n_beats == n + without.n_beats
    ends_before = [note for note in frames(held) if note[1] < n * 48]
    assert set(ends_before) <= set(frames(with_it, slice(n)))
    assert len(frames(with_it, slice(n))) == len(frames(held))
    assert np.allclose(with_it.beats_sec[n:] - with_it.beats_sec[n], without.beats_sec)
    struck_anew = set(frames(without)) - set(frames(with_it, slice(n, None)))
    assert {note[0] for note in struck_anew} <= {0}  # those held over from the prompt


def test_prompt_beats_takes_the_first_or_the_last(lm: PianoLM, prompt: Piece) -> None:
    all_ids = lm.tokenizer.encode(prompt).ids
    sampling = Sampling(2.0, top_p=1.0)
    for wanted, beats in (
        (3, slice(0, 3)),
        (-3, slice(-3, None)),
        (10_000, slice(None)),
        (-10_000, slice(None)),
    ):
        (take,) = lm.takes(sampling, prompt, beats=2, prompt_beats=wanted)
        kinds = lm.tokenizer.vocabulary.kind_of[take.ids]
        given = take.ids[: np.flatnonzero(kinds == Kind.TEMPO)[take.prompt_beats]]
        assert take.prompt_beats == len(range(prompt.n_beats)[beats])
        if wanted == -3:
            assert np.array_equal(given, all_ids[-given.size - 1 : -1])
        else:
            assert np.array_equal(given, all_ids[: given.size])
        assert take.piece.n_beats > take.prompt_beats
        assert take.new_tokens == take.ids.size - given.size
        assert take.first_beat_seconds > 0


def test_a_prompt_brings_its_bars_and_the_model_goes_on_with_bars_of_its_own(prompt: Piece) -> None:
    lm = toy_lm(bars=True)
    unknown = replace(prompt, downbeats_sec=None)
    for given in (prompt, unknown):
        for wanted in (None, 6, -6):
            new_bars = 0
            for take in lm.takes(Sampling(2.0, top_p=1.0), given, beats=12, pieces=16, prompt_beats=wanted):
                kinds = lm.tokenizer.vocabulary.kind_of[take.ids]
                new = np.flatnonzero(kinds == Kind.TEMPO)[take.prompt_beats]
                bars = (kinds[:new] == Kind.BAR).sum()
                assert bars == (take.prompt_beats if given is prompt else 0)
                assert lm.tokenizer.grammar.is_complete(take.ids)
                new_bars += int((kinds[new:] == Kind.BAR).sum())
            assert new_bars > 0, "the model is free"
    (piece,) = lm.generate(prompt, beats=3, prompt_beats=-6, **HOT)
    first = prompt.n_beats - 6
    last_bars = prompt.bar_starts[(prompt.bar_starts >= first) & (prompt.bar_starts < prompt.n_beats)]
    assert np.array_equal(piece.bar_starts[piece.bar_starts < 6], last_bars - first)


@pytest.mark.parametrize("prompt_beats", [-1, -3, -6, 5])
def test_beats_of_a_prompt_keep_their_positions_wherever_it_is_cut(prompt: Piece, prompt_beats: int) -> None:
    barred = replace(prompt, downbeats_sec=prompt.beats_sec[[0, 4, 8, 11, 14]])
    told = []
    for held in HELD:
        lm = toy_lm(bars=True, held=held)
        (take,) = lm.takes(Sampling(2.0, top_p=1.0), barred, beats=1, prompt_beats=prompt_beats)
        given = take.ids[: take.ids.size - take.new_tokens]
        told.append(given[lm.tokenizer.vocabulary.kind_of[given] == Kind.BAR].tolist())
    assert told[0] == told[1] == told[2]
    assert len(told[0]) == abs(prompt_beats)


def test_bars_stay_on_their_beats_in_a_held_tempo_and_out_of_the_prompt(prompt: Piece) -> None:
    lm = toy_lm(bars=True)
    settings: dict[str, Any] = {"beats": 16, "tempo_bpm": 100, "prompt_beats": 5, **HOT}
    begun = seed = 0
    while begun < 2 and seed < 100:
        seed += 1
        (with_it,) = lm.generate(prompt, seed=seed, **settings)
        (without,) = lm.generate(prompt, with_prompt=False, seed=seed, **settings)
        assert np.array_equal(with_it.bar_starts[with_it.bar_starts >= 5] - 5, without.bar_starts)
        assert np.allclose(without.beats_sec[without.bar_starts], without.bar_starts * 0.6)
        begun += without.bar_starts.size
    assert begun >= 2
    beats = list(lm.stream(prompt, seed=seed, **settings))
    assert len(beats) == without.n_beats
    assert np.array_equal(join(beats)["pitch"], without.notes["pitch"])


def test_several_prompts_give_what_each_gives_alone_and_have_their_own_luck(
    lm: PianoLM, prompt: Piece
) -> None:
    sampling, start = Sampling(2.0, top_p=1.0), prompt.beats_sec[0]
    prompts = {
        name: Piece.from_notes(make_notes([start], [start + 0.4], [pitch], [64]), start + np.arange(3) * 0.5)
        for name, pitch in (("a", 60), ("b", 61), ("c", 62), ("d", 63))
    }
    together = lm.takes(sampling, prompts, beats=2, pieces=2, seed=3)
    alone = [take for one in prompts.values() for take in lm.takes(sampling, one, beats=2, pieces=2, seed=3)]
    assert [take.ids.tolist() for take in together] == [take.ids.tolist() for take in alone]
    drawn = [take.ids[-take.new_tokens :].tolist() for take in together]
    assert len({tuple(ids) for ids in drawn}) == 8
    assert len({ids[0] for ids in drawn[::2]}) > 1, (
        "the same numbers drawn would give about the same first tempo"
    )
    silent = replace(prompts["b"], notes=prompts["b"].notes[:0])
    with pytest.raises(UserError, match=r"^prompt b: no notes found"):
        lm.takes(sampling, {"a": prompts["a"], "b": silent})


@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize(("prompt_beats", "bars"), [(None, 1), (7, 1), (-7, None)])
def test_known_bars_go_on_in_the_length_of_the_last(
    lm: PianoLM, prompt: Piece, prompt_beats: int | None, bars: int | None, with_prompt: bool
) -> None:
    """Bars of three beats behind one of upbeat."""
    barred = replace(prompt, downbeats_sec=prompt.beats_sec[1::3])
    (piece,) = lm.generate(barred, beats=9, prompt_beats=prompt_beats, with_prompt=with_prompt, seed=1, **HOT)
    given = min(prompt.n_beats, abs(prompt_beats or prompt.n_beats))
    first = 1 if bars else (1 - (prompt.n_beats - given)) % 3
    expected = np.arange(first, given + 10, 3) - (0 if with_prompt else given)
    found = np.searchsorted(piece.beats_sec, piece.downbeats_sec)
    assert found.tolist() == [bar for bar in expected.tolist() if 0 <= bar <= piece.n_beats]
    unbarred = replace(prompt, downbeats_sec=None)
    assert lm.generate(unbarred, beats=2, seed=1)[0].downbeats_sec is None


def test_length_in_seconds(lm: PianoLM) -> None:
    pieces = lm.generate(seconds=4.0, pieces=6, **HOT)
    long = [piece.beats_sec for piece in pieces if piece.beats_sec[-1] >= 4]
    assert len(long) > 1
    assert all(beats_sec[-2] < 4 for beats_sec in long)


def test_a_held_tempo_is_exact_and_only_that_of_new_beats(lm: PianoLM, prompt: Piece) -> None:
    (piece,) = lm.generate(prompt, beats=5, tempo_bpm=100, seed=2, **HOT)
    (free,) = lm.generate(prompt, beats=5, seed=2, **HOT)
    n = prompt.n_beats
    assert np.allclose(np.diff(piece.beats_sec[n:]), 0.6)
    assert np.array_equal(piece.beats_sec[: n + 1], free.beats_sec[: n + 1])
    assert not np.allclose(np.diff(free.beats_sec[n:]), 0.6, atol=0.05)
    assert frames(piece, slice(n)) != []


def test_settings_of_one_kind_act_on_that_kind_alone(lm: PianoLM) -> None:
    """Where all else is the most likely, only tempi differ from piece to piece."""
    likely = lm.generate(beats=2, pieces=2, temperature=0)
    assert same(*likely)
    hot_tempi = lm.generate(
        beats=2, pieces=2, temperature=0, by_kind={"tempo": {"temperature": 2, "top_p": 1}}
    )
    assert not np.array_equal(hot_tempi[0].beats_sec, hot_tempi[1].beats_sec)
    hot_pitches = lm.generate(
        beats=2, pieces=2, temperature=0, by_kind={"pitch": {"temperature": 2, "top_p": 1}}
    )
    assert hot_pitches[0].beats_sec[1] == hot_pitches[1].beats_sec[1] == likely[0].beats_sec[1]


@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_what_an_untrained_model_writes_comes_back_from_midi(mode: str, tmp_path: Path) -> None:
    """`experiments/generation-validity` does so with 1,000 pieces."""
    lm = toy_lm(mode)
    pieces = [piece for piece in lm.generate(beats=16, pieces=20, **HOT) if piece.notes.size]
    assert len(pieces) > 10
    for piece in pieces:
        piece.to_midi(tmp_path / "piece.mid")
        read = Piece.from_midi(tmp_path / "piece.mid", beats="tempo_map")
        back = lm.tokenizer.decode(lm.tokenizer.encode(read).ids)
        assert frames(back, slice(piece.n_beats)) == frames(piece)


def join(beats: list[Beat]) -> Notes:
    """The notes of beats one after the other."""
    rows: list[list[Any]] = []
    for beat in beats:
        for note, held in zip(beat.notes, beat.held, strict=True):
            if held:
                row = next(row for row in reversed(rows) if row[2] == note["pitch"])
                assert row[1] == pytest.approx(beat.start_sec)
                row[1] = note["offset_sec"]
            else:
                rows.append(list(note))
    return make_notes(*zip(*rows, strict=True))


@pytest.mark.parametrize("tempo_bpm", [None, 90.0])
def test_a_stream_is_the_piece_beat_by_beat(lm: PianoLM, prompt: Piece, tempo_bpm: float | None) -> None:
    settings: dict[str, Any] = {"beats": 12, "tempo_bpm": tempo_bpm, "prompt_beats": 6, "seed": 4, **HOT}
    (piece,) = lm.generate(prompt, with_prompt=False, **settings)
    beats = list(lm.stream(prompt, **settings))
    assert [beat.number for beat in beats] == list(range(piece.n_beats))
    assert len(beats) == 12
    assert np.allclose([beat.start_sec for beat in beats], piece.beats_sec[:-1])
    assert np.allclose([beat.tempo_bpm for beat in beats], 60 / np.diff(piece.beats_sec))
    joined = join(beats)
    for field in ("pitch", "velocity"):
        assert np.array_equal(joined[field], piece.notes[field])
    for field in ("onset_sec", "offset_sec"):
        assert np.allclose(joined[field], piece.notes[field])


def test_beats_say_which_notes_go_on(lm: PianoLM, prompt: Piece) -> None:
    """Each beat is made when nothing behind it is known."""
    ids = lm.tokenizer.encode(prompt).ids
    ends = np.flatnonzero(np.isin(lm.tokenizer.vocabulary.kind_of[ids], [Kind.TEMPO, Kind.EOS]))[1:]
    beats = [Beat.of(lm.tokenizer.decode(ids[:end]), number) for number, end in enumerate(ends)]
    piece = lm.tokenizer.decode(ids)
    joined = join(beats)
    assert sum(int(beat.held.sum()) for beat in beats) > 5
    assert np.array_equal(joined["pitch"], piece.notes["pitch"])
    assert np.array_equal(joined["velocity"], piece.notes["velocity"])
    assert np.allclose(joined["onset_sec"], piece.notes["onset_sec"])
    assert np.allclose(joined["offset_sec"], piece.notes["offset_sec"])


@pytest.mark.parametrize("mode", ["velocity", "base"])
@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("held", ["codes", "ages"])
def test_music_goes_on_from_what_sounds_at_the_end_of_a_prompt(held: str, mode: str, bars: bool) -> None:
    lm = toy_lm(mode, held=held, bars=bars)
    notes = make_notes([0, 0.2, 0.6, 1.1], [4, 0.4, 4, 4], [40, 50, 60, 64], [30, 60, 90, 120])
    prompt = Piece.from_notes(notes, BeatAnnotation(np.arange(9) * 0.5, np.arange(9) % 4 == 0))
    grammar = lm.tokenizer.grammar
    for wanted, given in ((None, prompt.n_beats), (5, 5), (-5, 5)):
        settings: dict[str, Any] = {"beats": 8, "prompt_beats": wanted, "seed": 3, **HOT}
        sampling = Sampling(2.0, top_p=1.0)
        (take,) = lm.takes(sampling, prompt, beats=8, prompt_beats=wanted, seed=3)
        assert grammar.is_complete(take.ids)
        assert (take.piece.skipped, take.prompt_beats) == (0, given)
        rest = take.piece.from_beat(given)
        (without,) = lm.generate(prompt, with_prompt=False, **settings)
        assert frames(without) == frames(rest)
        assert np.array_equal(without.notes["velocity"], rest.notes["velocity"])
        joined = join(list(lm.stream(prompt, **settings)))
        assert np.array_equal(joined["pitch"], without.notes["pitch"])
        assert np.array_equal(joined["velocity"], without.notes["velocity"])
        assert np.allclose(joined["onset_sec"], without.notes["onset_sec"])
        first = np.flatnonzero(lm.tokenizer.vocabulary.kind_of[take.ids] == Kind.TEMPO)[given]
        states = [grammar.start()]
        for token in take.ids[: first + 1]:
            states.append(grammar.advance(states[-1], int(token)))
        assert states[-1].due.bit_count() == 3, "what sounds on is told first"
    (fixed,) = lm.generate(prompt, beats=4, prompt_beats=5, tempo_bpm=77.0, seed=1, **HOT)
    assert np.allclose(np.diff(fixed.beats_sec[5:]), 60 / 77)


@pytest.mark.parametrize("held", ["codes", "ages"])
def test_the_last_beats_of_a_prompt_begin_with_what_sounds_there_struck(held: str) -> None:
    lm = toy_lm(held=held)
    notes = make_notes([0, 3.1], [4, 3.9], [40, 60], [30, 90])
    prompt = Piece.from_notes(notes, np.arange(9) * 0.5)
    (take,) = lm.takes(Sampling(2.0, top_p=1.0), prompt, beats=1, prompt_beats=-4)
    told = lm.tokenizer.decode(take.ids).frame_notes
    assert (0, 40) in told[["onset", "pitch"]].tolist()
    assert lm.tokenizer.vocabulary.kind_of[take.ids[0]] == Kind.TEMPO, "in the midst of a piece"


def test_a_stream_gives_its_first_beat_before_the_rest_is_written(lm: PianoLM) -> None:
    first = next(iter(lm.stream(beats=10**9, seed=8, **HOT)))
    assert (first.number, first.start_sec) == (0, 0.0)


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
@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("name", ["piece", "dense"])
def test_dynamics_keep_every_note(name: str, temperature: float, options: dict[str, Any]) -> None:
    """Beyond the context, too."""
    lm = toy_lm(**options)
    original = Piece.from_midi(GOLDEN / f"{name}.mid")
    flat_notes = original.notes.copy()
    flat_notes["velocity"] = 64
    flat = replace(Piece.from_notes(flat_notes, original.beats_sec), downbeats_sec=original.downbeats_sec)
    assert flat.flat
    assert lm.tokenizer.encode(flat).ids.size > 2 * CONTEXT
    lively = lm.render_dynamics(flat, temperature=temperature, top_p=1.0, seed=1)
    told = lm.tokenizer.decode(lm.tokenizer.encode(flat).ids)
    assert lively.skipped == 0
    for field in ("onset_sec", "offset_sec", "pitch"):
        assert np.array_equal(lively.notes[field], told.notes[field])
    assert np.array_equal(lively.beats_sec, told.beats_sec)
    assert np.array_equal(lively.bar_starts, told.bar_starts)
    bars = flat.bar_starts if "bars" in options else np.zeros(0)
    assert np.array_equal(lively.bar_starts, bars[bars < flat.n_beats])
    assert np.unique(lively.notes["velocity"]).size > (1 if temperature == 0 else 5)
    again = lm.render_dynamics(original, temperature=temperature, top_p=1.0, seed=1)
    assert np.array_equal(
        again.notes["velocity"], lively.notes["velocity"]
    )  # the given ones count for nothing


def test_dynamics_hear_the_new_velocities_of_the_past_alone(prompt: Piece) -> None:
    """The most likely velocity of each note is that of the full forward pass over what was chosen before it."""
    lm = toy_lm(context=4096)
    ids = render_ids(lm._player, lm.tokenizer, prompt, Sampling(0), 0)
    block = lm.tokenizer.vocabulary.ids(Kind.VELOCITY)
    at = np.flatnonzero(lm.tokenizer.vocabulary.kind_of[ids] == Kind.VELOCITY)
    struck = lm.tokenizer.decode(ids).cells.onset != 0
    with torch.inference_mode():
        logits_TV = lm.model(input_ids=torch.tensor(ids[None])).logits[0].numpy()
    likely = logits_TV[at - 1, block].argmax(axis=1) + block.start
    assert struck.sum() > 20
    assert np.array_equal(ids[at][struck], likely[struck])


def test_a_held_note_repeats_its_velocity_to_the_model() -> None:
    lm = toy_lm()
    notes = make_notes([0, 0.1, 2.6], [2.4, 1.2, 3], [60, 67, 60], [64, 64, 64])
    piece = Piece.from_notes(notes, np.arange(8) * 0.5)
    ids = render_ids(lm._player, lm.tokenizer, piece, Sampling(2.0), 3)
    cells = lm.tokenizer.decode(ids).cells
    codes = ids[lm.tokenizer.vocabulary.kind_of[ids] == Kind.VELOCITY]
    said = lm.tokenizer.codec.decode(
        codes - lm.tokenizer.vocabulary.offset(Kind.VELOCITY), cells.sustain, cells.onset
    )
    low = said[np.repeat(cells.pitch, cells.segment_count) == 60]
    assert low.size == 6
    assert np.unique(low[:5]).size == 1


def test_what_cannot_be_done_is_one_sentence(lm: PianoLM, prompt: Piece) -> None:
    silent = Piece(prompt.notes[:0], prompt.beats_sec, flat=True)
    late = make_notes([5.0], [6.0], [60], [64])
    for wrong, said in (
        (lambda: lm.generate(silent), "prompt: no notes found, expected at least one"),
        (
            lambda: lm.generate(Piece.from_notes(late, np.arange(20) * 0.5), prompt_beats=4),
            "no notes found in its first 4 beats",
        ),
        (lambda: lm.generate(prompt, prompt_beats=0), "prompt_beats=0"),
        (lambda: lm.generate(beats=0), "beats=0"),
        (lambda: lm.generate(seconds=-1), "seconds=-1"),
        (lambda: lm.generate(pieces=0), "pieces=0"),
        (lambda: lm.generate(seed=-1), "seed=-1"),
        (lambda: lm.generate(tempo_bpm=5), "tempo_bpm=5"),
        (lambda: lm.stream(top_k=-1), "top_k=-1"),
        (lambda: lm.generate(by_kind={"rhythm": {}}), "'rhythm' found"),
        (lambda: lm.render_dynamics(silent), "without notes"),
        (lambda: toy_lm("base").render_dynamics(prompt), "mode base found"),
    ):
        with pytest.raises(UserError, match=said):
            wrong()


def test_a_chord_longer_than_the_context_is_no_prompt(lm: PianoLM) -> None:
    keys = np.arange(40, 60)
    chord = Piece.from_notes(make_notes(keys * 0.0, keys * 0.0 + 0.4, keys, keys), np.arange(3) * 0.5)
    assert lm.generate(chord, beats=1)[0].n_beats > 2  # its last beat is silent
    with pytest.raises(UserError, match=r"its last beat has .* tokens, but the model's context is 48"):
        lm.generate(chord, beats=1, prompt_beats=1)


@pytest.fixture
def saved(lm: PianoLM, tmp_path: Path) -> Path:
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def test_a_saved_model_plays_the_same(lm: PianoLM, saved: Path) -> None:
    loaded = PianoLM.from_pretrained(saved)
    assert same(*loaded.generate(beats=3, seed=1), *lm.generate(beats=3, seed=1))


def test_pickled_weights_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    torch.save({"a": torch.zeros(2)}, saved / "other.pt")
    with pytest.raises(UserError, match="a file found, expected a directory"):
        PianoLM.from_pretrained(saved / "other.pt")
    (saved / "other.pt").rename(weights)
    with pytest.raises(UserError, match="a pickle found, expected weights in the safetensors format"):
        PianoLM.from_pretrained(saved)
    weights.rename(saved / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"no model.safetensors; pytorch_model.bin found, but pickled weights"
    ):
        PianoLM.from_pretrained(saved)


def test_damaged_and_foreign_parts_are_named(lm: PianoLM, saved: Path) -> None:
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="not readable"):
        PianoLM.from_pretrained(saved)
    weights.write_bytes(whole)
    with pytest.raises(UserError, match="the model has 4779 ids, the tokenizer 4789"):
        PianoLM(toy_llama(Vocabulary(tempo=40)), lm.tokenizer)
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config.json; expected a directory published by"):
        PianoLM.from_pretrained(saved)
