"""`PianoLM`: generating from nothing, after prompts and beat by beat; saving and loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.config.generate import SAMPLING_DEFAULTS
from pianolm.dynamics.renderer import DynamicsModel
from pianolm.errors import UserError
from pianolm.generation.config import GenerationConfig, SamplingSettings
from pianolm.lm.sampling_file import write_sampling
from pianolm.music.cells import resolve_notes
from pianolm.music.continuation import part_of_piece
from pianolm.music.notes import make_notes, sort_notes
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.evaluation.toys import model_directory
from tests.generation.tools import HOT, frames, join, pieces, same, toy_lm
from tests.toy_lm import CONTEXT, GOLDEN, LAYOUTS, toy_llama


@pytest.fixture(scope="module")
def lm() -> PianoLM:
    return toy_lm()


@pytest.fixture(scope="module")
def prompt() -> Piece:
    return Piece.from_midi(GOLDEN / "piece.mid")


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


def test_pieces_begin_with_the_prompt_or_leave_it_out(lm: PianoLM, prompt: Piece) -> None:
    (with_it,) = lm.generate(prompt, beats=4, seed=1, **HOT)
    (without,) = lm.generate(prompt, beats=4, seed=1, with_prompt=False, **HOT)
    n = prompt.n_beats
    assert with_it.n_beats == n + without.n_beats
    ends_before = [note for note in frames(prompt) if note[1] < n * 48]
    assert set(ends_before) <= set(frames(with_it, slice(n)))
    assert len(frames(with_it, slice(n))) == len(frames(prompt))
    assert np.allclose(with_it.beats_sec[n:] - with_it.beats_sec[n], without.beats_sec)
    struck_again = set(frames(without)) - set(frames(with_it, slice(n, None)))
    assert {note[0] for note in struck_again} <= {0}  # those held over from the prompt


def check_prompt_is_kept(prompt: Piece, piece: Piece) -> None:
    """The first beats of a piece are those of a prompt, with its notes; only notes at the seam may be longer."""
    n, seam_sec = prompt.n_beats, prompt.beats_sec[-1]
    assert np.array_equal(piece.beats_sec[: n + 1], prompt.beats_sec)
    known = prompt.bar_starts[prompt.bar_starts < n]
    last_known = known.max(initial=-1)  # from there on bars go on at the length of the last one
    assert np.array_equal(piece.bar_starts[piece.bar_starts <= last_known], known)
    old = piece.notes[: prompt.notes.size]
    for field in ("onset_sec", "pitch"):
        assert np.array_equal(old[field], prompt.notes[field])
    for before, kept in zip(prompt.notes.tolist(), sort_notes(old.copy()).tolist(), strict=True):
        frame_sec = (prompt.beats_sec[-1] - prompt.beats_sec[-2]) / 48
        assert kept[3] == before[3]
        assert kept[1] == before[1] or (before[1] >= seam_sec - frame_sec and kept[1] >= seam_sec)


@given(pieces(), st.booleans())
@settings(max_examples=30)
def test_a_prompt_stays_as_it_was_played(
    lm: PianoLM, tmp_path_factory: pytest.TempPathFactory, prompt: Piece, fixed: bool
) -> None:
    piece = lm.generate(prompt, beats=4, seed=1, tempo_bpm=90 if fixed else None, **HOT)[0]
    check_prompt_is_kept(prompt, piece)
    assert piece.n_beats > prompt.n_beats
    path = tmp_path_factory.mktemp("midi") / "piece.mid"
    piece.to_midi(path)
    read = Piece.from_midi(path, beats="tempo_map")
    assert np.array_equal(read.frame_notes, piece.frame_notes)
    assert np.allclose(read.beats_sec, piece.beats_sec - piece.beats_sec[0], rtol=0, atol=1e-3)
    assert np.array_equal(read.bar_starts, piece.bar_starts)
    resolved, _ = resolve_notes(piece.notes, piece.beats_sec)
    assert np.allclose(
        read.notes["onset_sec"], np.sort(resolved["onset_sec"]) - piece.beats_sec[0], rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("options", LAYOUTS)
def test_a_part_of_a_prompt_stays_as_it_was_played(prompt: Piece, options: dict[str, Any]) -> None:
    toy = toy_lm(**options)
    barred = replace(prompt, downbeats_sec=prompt.beats_sec[1::3])
    for prompt_beats, first, last in ((7, 0, 7), (-7, prompt.n_beats - 7, prompt.n_beats)):
        (piece,) = toy.generate(barred, beats=4, prompt_beats=prompt_beats, seed=1, **HOT)
        check_prompt_is_kept(part_of_piece(barred, first, last), piece)


def test_several_prompts_give_the_pieces_of_each_alone_from_separate_random_streams(
    lm: PianoLM, prompt: Piece
) -> None:
    start = prompt.beats_sec[0]
    prompts = {
        name: Piece.from_notes(make_notes([start], [start + 0.4], [pitch], [64]), start + np.arange(3) * 0.5)
        for name, pitch in (("a", 60), ("b", 61), ("c", 62), ("d", 63))
    }
    together = lm.generate_pieces(prompts, beats=2, pieces=2, seed=3, **HOT)
    alone = [
        generated
        for one in prompts.values()
        for generated in lm.generate_pieces(one, beats=2, pieces=2, seed=3, **HOT)
    ]
    assert [generated.ids.tolist() for generated in together] == [
        generated.ids.tolist() for generated in alone
    ]
    new_ids = [generated.ids[-generated.new_tokens :].tolist() for generated in together]
    assert len({tuple(ids) for ids in new_ids}) == 8
    assert len({ids[0] for ids in new_ids[::2]}) > 1, (
        "equal random numbers would give about the same first tempo"
    )
    silent = replace(prompts["b"], notes=prompts["b"].notes[:0])
    with pytest.raises(UserError, match=r"^prompt b: no notes found"):
        lm.generate_pieces({"a": prompts["a"], "b": silent})


def test_seconds_are_rounded_up_to_whole_beats(lm: PianoLM) -> None:
    pieces = lm.generate(seconds=4.0, pieces=6, **HOT)
    long = [piece.beats_sec for piece in pieces if piece.beats_sec[-1] >= 4]
    assert len(long) > 1
    assert all(beats_sec[-2] < 4 for beats_sec in long)


def test_a_fixed_tempo_is_exact_and_applies_to_new_beats_only(lm: PianoLM, prompt: Piece) -> None:
    (piece,) = lm.generate(prompt, beats=5, tempo_bpm=100, seed=2, **HOT)
    (free,) = lm.generate(prompt, beats=5, seed=2, **HOT)
    n = prompt.n_beats
    assert np.allclose(np.diff(piece.beats_sec[n:]), 0.6)
    assert np.array_equal(piece.beats_sec[: n + 1], free.beats_sec[: n + 1])
    assert not np.allclose(np.diff(free.beats_sec[n:]), 0.6, atol=0.05)
    assert frames(piece, slice(n)) != []


def test_a_piece_ends_early_only_where_the_model_may_end_it(lm: PianoLM, prompt: Piece) -> None:
    settings: dict[str, Any] = {"beats": 40, "pieces": 12, "seed": 1, **HOT}
    free = lm.generate_pieces(prompt, **settings)
    short = [one for one in free if one.piece.n_beats < prompt.n_beats + 40]
    assert 0 < len(short) < len(free)
    for one in free:
        new_beats = one.piece.n_beats - prompt.n_beats
        told = f"the model ended it at beat {new_beats} of 40; generate.end=never goes on"
        assert one.ended_by_model == (told if one in short else "")
        assert one.piece.remarks.generated == (one.prompt_cut, *([told] if one in short else []))
        assert "the model's context is 48" in one.prompt_cut
        assert f"of its {prompt.n_beats} beats" in one.prompt_cut
    for options in ({}, {"ties": "explicit", "bars": True}):
        toy = lm if not options else toy_lm(**options)
        for one in toy.generate_pieces(end="never", **settings):
            assert (one.piece.n_beats, one.ended_by_model, one.prompt_cut) == (40, "", "")
            assert toy.tokenizer.grammar.is_complete(one.ids)
    long = lm.generate_pieces(end="never", seconds=30.0, pieces=3, seed=1, **HOT)
    assert all(one.piece.beats_sec[-1] >= 30 for one in long)


def test_paths_take_the_place_of_pieces(lm: PianoLM, prompt: Piece) -> None:
    path = GOLDEN / "piece.mid"
    settings: dict[str, Any] = {"beats": 2, "seed": 1, **HOT}
    for source in (path, str(path)):
        assert same(*lm.generate(source, **settings), *lm.generate(prompt, **settings))
        by_itself = (lm.render_dynamics(one, language_model=True) for one in (source, prompt))
        assert same(*by_itself)
        assert np.array_equal(lm.tokenizer.encode(source).ids, lm.tokenizer.encode(prompt).ids)
        assert next(lm.stream(source, **settings)).end_sec == next(lm.stream(prompt, **settings)).end_sec
    with pytest.raises(UserError, match=r"none\.mid: no such file"):
        lm.generate("none.mid")


def test_a_device_that_is_not_there_is_one_sentence(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device, message in (
        ("cuda", "device='cuda' found, but torch sees no CUDA GPU on this machine; use device='cpu'"),
        ("cuda:3", "torch sees no CUDA GPU"),
        ("fast", "device='fast' found, expected a device of torch"),
    ):
        with pytest.raises(UserError, match=message) as error:
            PianoLM.from_pretrained(saved, device=device)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nowhere: no such directory; expected a directory published by"):
        PianoLM.from_pretrained(saved / "nowhere")


def test_settings_of_a_kind_affect_only_that_kind(lm: PianoLM) -> None:
    """With temperature 0 for all other kinds, only tempi differ between pieces."""
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
def test_generated_pieces_survive_a_round_trip_through_midi(mode: str, tmp_path: Path) -> None:
    """`experiments/generation-validity` tests 1,000 pieces."""
    lm = toy_lm(mode)
    pieces = [piece for piece in lm.generate(beats=16, pieces=20, **HOT) if piece.notes.size]
    assert len(pieces) > 10
    for piece in pieces:
        piece.to_midi(tmp_path / "piece.mid")
        read = Piece.from_midi(tmp_path / "piece.mid", beats="tempo_map")
        back = lm.tokenizer.decode(lm.tokenizer.encode(read).ids)
        assert frames(back, slice(piece.n_beats)) == frames(piece)


@pytest.mark.parametrize("tempo_bpm", [None, 90.0])
def test_a_stream_has_the_beats_of_the_piece(lm: PianoLM, prompt: Piece, tempo_bpm: float | None) -> None:
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


def test_a_stream_gives_its_first_beat_before_the_rest_is_generated(lm: PianoLM) -> None:
    first = next(iter(lm.stream(beats=10**9, seed=8, **HOT)))
    assert (first.number, first.start_sec) == (0, 0.0)


def test_a_wrong_argument_is_one_sentence(lm: PianoLM, prompt: Piece) -> None:
    silent = Piece(prompt.notes[:0], prompt.beats_sec, flat=True)
    late = make_notes([5.0], [6.0], [60], [64])
    for wrong, message in (
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
        (lambda: lm.generate(by_kind={"rhythm": {}}), r"by_kind\.rhythm: unknown kind"),
        (lambda: lm.render_dynamics(silent), "without notes"),
        (lambda: lm.render_dynamics(silent, language_model=True), "without notes"),
        (lambda: lm.render_dynamics(prompt, top_p=0.9), r"top_p=0\.9 found.*add language_model=True"),
        (lambda: lm.render_dynamics(prompt, median_velocity=0), "median_velocity=0 found, expected 1 to 127"),
        (
            lambda: lm.render_dynamics(prompt, median_velocity=60, language_model=True),
            "median_velocity=60 found, which a language model cannot be told",
        ),
        (lambda: toy_lm("base").render_dynamics(prompt, language_model=True), "mode base found"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()


@pytest.fixture
def saved(lm: PianoLM, tmp_path: Path) -> Path:
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def test_a_saved_model_generates_the_same(lm: PianoLM, saved: Path) -> None:
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


def test_damaged_and_mismatched_parts_are_named(lm: PianoLM, saved: Path) -> None:
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


def test_a_plain_weights_file_generates_what_the_model_does(lm: PianoLM, tmp_path: Path) -> None:
    weights = {f"net.llama.{name}": tensor for name, tensor in lm.model.state_dict().items()}
    torch.save(weights, tmp_path / "x.pt")
    loaded = PianoLM.from_weights(tmp_path / "x.pt", lm.tokenizer, heads=4, context=CONTEXT)
    assert same(*loaded.generate(beats=3, seed=1), *lm.generate(beats=3, seed=1))
    message = rf"^{tmp_path}/x\.pt: embedding of 4789 ids, the tokenizer has 4779"
    other = PianoTokenizer(
        Codebook(Vocabulary(tempo=40), lm.tokenizer.codebook.levels), TempoBins("log50", 40)
    )
    with pytest.raises(UserError, match=message):
        PianoLM.from_weights(tmp_path / "x.pt", other, heads=4)


def test_a_network_that_was_changed_is_the_one_that_plays(lm: PianoLM, tmp_path: Path) -> None:
    torch.save(lm.model.state_dict(), tmp_path / "x.pt")
    loaded = PianoLM.from_weights(tmp_path / "x.pt", lm.tokenizer, heads=4, context=CONTEXT)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.neg_()
    assert not same(*loaded.generate(beats=3, seed=1, **HOT), *lm.generate(beats=3, seed=1, **HOT))
    changed = PianoLM(loaded.model, lm.tokenizer)
    assert same(*loaded.generate(beats=3, seed=1, **HOT), *changed.generate(beats=3, seed=1, **HOT))


def test_a_models_own_sampling_holds_where_a_call_says_nothing(lm: PianoLM, prompt: Piece) -> None:
    own = SamplingSettings(**HOT, repeat=1.0, by_kind={"velocity": {"temperature": 0.0}})
    model = PianoLM(lm.model, lm.tokenizer, own)
    settings: dict[str, Any] = {"beats": 4, "seed": 1}
    (as_model,) = model.generate(prompt, temperature=None, **settings)
    assert same(as_model, lm.generate(prompt, **own.sampling, **settings)[0])
    assert same(as_model, model.generate(prompt, GenerationConfig(beats=4), seed=1)[0])
    assert [beat.notes.tolist() for beat in model.stream(prompt, **settings)] == [
        beat.notes.tolist() for beat in lm.stream(prompt, **own.sampling, **settings)
    ]
    (replaced,) = model.generate(prompt, temperature=1.5, repeat=0, **settings)
    assert same(replaced, lm.generate(prompt, temperature=1.5, top_p=1.0, **settings)[0])
    assert same(lm.generate(prompt, **settings)[0], lm.generate(prompt, **SAMPLING_DEFAULTS, **settings)[0])
    assert lm.generation_defaults == SamplingSettings()


def test_dynamics_are_sampled_as_the_models_velocities(lm: PianoLM, prompt: Piece) -> None:
    own = SamplingSettings(**HOT, by_kind={"velocity": {"temperature": 0.0}})
    model = PianoLM(lm.model, lm.tokenizer, own)
    by_itself: dict[str, Any] = {"seed": 1, "language_model": True}
    assert same(model.render_dynamics(prompt, **by_itself), lm.render_dynamics(prompt, 0.0, **by_itself))
    assert same(
        model.render_dynamics(prompt, 3.0, **by_itself), lm.render_dynamics(prompt, 3.0, 1.0, **by_itself)
    )


def test_dynamics_are_those_of_the_bundled_model(lm: PianoLM, prompt: Piece) -> None:
    box = DynamicsModel.from_pretrained()
    assert same(lm.render_dynamics(prompt, seed=1), box.render(prompt, seed=1))
    soft = lm.render_dynamics(prompt, 0.0, median_velocity=40)
    assert same(soft, toy_lm("base").render_dynamics(prompt, 0.0, median_velocity=40))
    assert abs(np.median(soft.notes["velocity"]) - 40) <= 1


def test_a_directory_brings_its_sampling_along_or_one_sentence(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", velocity=True)
    assert PianoLM.from_pretrained(directory).generation_defaults == SamplingSettings()
    write_sampling(directory, {"temperature": 0.5, "by_kind": {"bar": {"top_k": 1}}})
    loaded = PianoLM.from_pretrained(directory).generation_defaults
    assert loaded == SamplingSettings(temperature=0.5, by_kind={"bar": {"top_k": 1}})
    path = directory / "generation_config.json"
    path.write_text('{"top_p": 7}')
    with pytest.raises(UserError, match=rf"^{path}: top_p=7 found, expected a number above 0 and at most 1"):
        PianoLM.from_pretrained(directory)
