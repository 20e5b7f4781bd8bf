"""Writing: cached logits equal the full forward pass, everything is well-formed, seeds decide, the context refills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pianolm.errors import UserError
from pianolm.generation.engine import Engine
from pianolm.generation.generator import AT_ONCE, HeldTempo, Length, Player, Song, window_start
from pianolm.generation.sampling import Drawer, Sampling
from pianolm.tokenizer.vocabulary import Kind
from tests.toy_lm import CONTEXT, toy_llama, toy_tokenizer

TOLERANCE = 1e-4
TOKENIZER = toy_tokenizer()
GRAMMAR, VOCABULARY = TOKENIZER.grammar, TOKENIZER.vocabulary
HOT = Sampling(2.0, top_p=1.0)


def player(**changes: Any) -> Player:
    return Player(toy_llama(VOCABULARY, **changes), GRAMMAR, TOKENIZER.tempo)


def prompts() -> list[np.ndarray]:
    tempo, pitch, loud = (VOCABULARY.offset(kind) for kind in (Kind.TEMPO, Kind.PITCH, Kind.VELOCITY))
    long = [
        VOCABULARY.bos,
        tempo + 20,
        pitch + 60,
        3,
        loud,
        pitch + 64,
        9,
        loud + 5,
        tempo + 30,
        pitch + 50,
        7,
        loud,
    ]
    return [np.array([VOCABULARY.bos]), np.array(long), np.array([*long, VOCABULARY.eos])[8:]]


def songs(of: list[np.ndarray], seeds: list[int]) -> list[Song]:
    return [Song(GRAMMAR, prompt, seed, CONTEXT) for prompt, seed in zip(of, seeds, strict=True)]


def write(
    with_player: Player, made: list[Song], beats: int = 6, sampling: Sampling = HOT, **more: Any
) -> list[list[int]]:
    for _ in with_player.write(made, Length(beats), sampling, **more):
        pass
    return [song.ids for song in made]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("kind", [{}, {"num_key_value_heads": 2, "tie_word_embeddings": False}])
def test_what_is_drawn_from_are_the_logits_of_the_full_forward_pass(
    kind: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after refills, over what the cache holds: all, or whole beats from the context's first half on."""
    written = player(**kind)
    model = toy_llama(VOCABULARY, **kind)
    errors, refilled, following = [], 0, Player._next

    def spy(self: Player, engine: Engine, row: int, song: Song, drawer: Drawer) -> int:
        nonlocal refilled
        seen = song.ids[-engine.lengths[row] :]
        with torch.inference_mode():
            full = model(input_ids=torch.tensor([seen]), logits_to_keep=1).logits[0, -1].numpy()
        errors.append(np.abs(full[self.places.order] - engine.logits(row, 0, VOCABULARY.size)).max())
        if len(seen) < len(song.ids):
            refilled += 1
            assert len(seen) >= CONTEXT // 2
        return following(self, engine, row, song, drawer)

    monkeypatch.setattr(Player, "_next", spy)
    given = [prompts()[n % 3] for n in range(rows)]
    write(written, songs(given, list(range(1, rows + 1))), beats=20 if rows > 1 else 40)
    assert len(errors) > 80
    assert refilled > 20
    assert max(errors) < TOLERANCE


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
def test_all_that_an_untrained_model_writes_is_well_formed(mode: str, options: dict[str, Any]) -> None:
    tokenizer = toy_tokenizer(mode, **options)
    written = Player(toy_llama(tokenizer.vocabulary), tokenizer.grammar, tokenizer.tempo)
    start = np.array([tokenizer.vocabulary.bos])
    made = [Song(tokenizer.grammar, start, seed, CONTEXT) for seed in range(24)]
    for ids in write(written, made, beats=24):
        assert tokenizer.grammar.is_complete(ids)
        assert tokenizer.decode(ids).skipped == 0
    assert max(len(song.ids) for song in made) > 2 * CONTEXT
    bars = sum(int((tokenizer.vocabulary.kind_of[song.ids] == Kind.BAR).sum()) for song in made)
    assert (bars > 0) == ("bars" in options)


def test_prompts_stay_and_new_music_begins_with_a_beat() -> None:
    given = prompts()
    for ids, prompt, song in zip(write(player(), made := songs(given, [1, 2, 3])), given, made, strict=True):
        kept = prompt[prompt != VOCABULARY.eos].tolist()
        assert ids[: len(kept)] == kept
        assert VOCABULARY.kind_of[ids[len(kept)]] == Kind.TEMPO
        assert song.prompt_beats == sum(VOCABULARY.kind_of[kept] == Kind.TEMPO)
        assert song.new_beats + song.prompt_beats == len(song.beat_at)


def test_a_seed_gives_its_piece_whatever_is_written_beside_it() -> None:
    many = AT_ONCE["cpu"] + 5  # some wait for a place
    written = player()
    seeds = list(range(100, 100 + many))
    together = write(written, songs([prompts()[n % 3] for n in range(many)], seeds))
    for n in (0, 1, 7, many - 1):
        assert write(written, songs([prompts()[n % 3]], [seeds[n]])) == [together[n]]
    assert len({tuple(ids) for ids in together}) == many


def test_a_piece_ends_behind_its_beats_or_seconds() -> None:
    written = player()
    made = songs([prompts()[1]] * 12, list(range(12)))
    write(written, made, beats=20)
    ends = [song.new_beats for song in made]
    assert max(ends) == 20
    assert min(ends) < 20  # by itself
    timed = songs([prompts()[1]] * 12, list(range(12)))
    for _ in written.write(timed, Length(None, 2.5), HOT):
        pass
    full = [song for song in timed if song.new_seconds >= 2.5]
    assert len(full) > 2
    for song in full:
        new_sec = TOKENIZER.decode(song.ids[song.given :]).beats_sec
        assert song.new_seconds == pytest.approx(new_sec[-1])
        assert new_sec[-2] < 2.5


def test_each_new_beat_is_told_once_and_when_it_is_complete() -> None:
    made = songs([prompts()[1]] * 5, list(range(5)))
    told = dict.fromkeys(range(5), 0)
    for index in player().write(made, Length(4), HOT):
        told[index] += 1
        piece = TOKENIZER.decode(made[index].ids[made[index].given : -1])
        assert (piece.n_beats, piece.skipped) == (told[index], 0)
    assert told == {index: song.new_beats for index, song in enumerate(made)}


def test_a_held_tempo_is_the_nearest_token_and_counts_exactly() -> None:
    held = HeldTempo.nearest(100, TOKENIZER.tempo, VOCABULARY)
    made = songs([prompts()[1]] * 6, list(range(6)))
    write(player(), made, held=held)
    nearest = VOCABULARY.offset(Kind.TEMPO) + np.abs(TOKENIZER.tempo.bpm / 100 - 1).argmin()
    for song in made:
        new = np.array(song.ids[song.given :])
        assert set(new[VOCABULARY.kind_of[new] == Kind.TEMPO]) == {nearest}
        assert song.new_seconds == pytest.approx(0.6 * song.new_beats)
    with pytest.raises(UserError, match="tempo_bpm=600 found, expected 15 to 480"):
        HeldTempo.nearest(600, TOKENIZER.tempo, VOCABULARY)


def test_a_window_is_whole_beats_from_half_the_context_on() -> None:
    beats = list(range(1, 200, 7))
    assert window_start(48, beats, 48) == 0
    for n_tokens in range(49, 200):
        before = [at for at in beats if at < n_tokens]
        start = window_start(n_tokens, before, 48)
        assert start in beats
        assert 24 <= n_tokens - start < 24 + 7
    assert window_start(60, [1, 20, 50], 48) == 20  # the fullest where beats are long
    assert window_start(60, [1, 50], 48) == 50  # less than half: the only whole beat
    assert window_start(80, [1], 48) == 56  # one beat that is longer than the context


def test_a_prompt_whose_last_beat_is_longer_than_the_context_is_refused() -> None:
    tempo, pitch, loud = (VOCABULARY.offset(kind) for kind in (Kind.TEMPO, Kind.PITCH, Kind.VELOCITY))
    ids = [VOCABULARY.bos, tempo]
    for key in range(30, 60):
        ids += [pitch + key, 0, loud]
    with pytest.raises(
        UserError, match=r"last beat has 91 tokens, but the model's context is 48 .* fewer notes"
    ):
        Song(GRAMMAR, np.array(ids), 0, CONTEXT)
    assert len(write(player(), songs([np.array([*ids, tempo])], [0]))[0]) > len(ids)


@pytest.mark.parametrize("bars", [False, True])
def test_new_music_begins_with_a_beat_behind_a_prompt_that_ends_with_a_tempo(bars: bool) -> None:
    """Even where what may follow that tempo, a bar or a pitch, is likelier."""
    tokenizer = toy_tokenizer(bars=bars)
    tempo = tokenizer.vocabulary.offset(Kind.TEMPO)
    written = Player(toy_llama(tokenizer.vocabulary), tokenizer.grammar, tokenizer.tempo)
    prompt = np.array([tokenizer.vocabulary.bos, tempo + 20, tempo + 21])
    for seed in range(12):
        song = Song(tokenizer.grammar, prompt, seed, CONTEXT)
        (ids,) = write(written, [song], beats=2)
        assert ids[: prompt.size] == prompt.tolist()
        assert tokenizer.vocabulary.kind_of[ids[prompt.size]] == Kind.TEMPO
        assert tokenizer.grammar.is_complete(ids)


@pytest.mark.parametrize(
    "wrong", [{"beats": 0}, {"beats": None, "seconds": 0.0}, {"beats": None, "seconds": np.inf}]
)
def test_impossible_lengths_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="found, expected"):
        Length(**wrong)
