"""The preference for bars heard before: what is read, which logits are raised, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pianolm import PianoLM, PianoTokenizer, Piece
from pianolm.evaluation.music_statistics import bar_likeness
from pianolm.generation.config import GenerationConfig
from pianolm.generation.generator import Generator
from pianolm.generation.repetition import CODE_SHARE, HeardBeats, Repetition
from pianolm.generation.sampling import TokenOrder
from pianolm.music.bars import UNKNOWN, bar_positions
from pianolm.music.notes import make_notes
from pianolm.tokenizer.vocabulary import Kind
from tests.generation.tools import HOT, join, pieces, same, toy_lm
from tests.toy_lm import LAYOUTS, toy_tokenizer

STRENGTH = 3.0
TOKENIZER = toy_tokenizer("base")
FIRST_PITCH, FIRST_TEMPO = (TOKENIZER.vocabulary.offset(kind) for kind in (Kind.PITCH, Kind.TEMPO))
ONSET, SUSTAIN = (
    np.asarray(masks[: TOKENIZER.vocabulary.count(Kind.L1)])
    for masks in (TOKENIZER.codebook.id_patterns.onset, TOKENIZER.codebook.id_patterns.sustain)
)
STRUCK, OTHER_STRUCK = np.flatnonzero(ONSET > 0)[:2].tolist()
HELD = int(np.flatnonzero((ONSET == 0) & (SUSTAIN > 0))[0])


def beat(*cells: tuple[int, int]) -> list[int]:
    """A tempo, and cells of pitch and code."""
    return [FIRST_TEMPO + 20, *(token for pitch, code in cells for token in (FIRST_PITCH + pitch, code))]


def bonus(ids: list[int], tokenizer: PianoTokenizer = TOKENIZER, bar_beats: int = 4) -> dict[int, float]:
    """What each id's logit is raised by after some tokens."""
    grammar = tokenizer.grammar
    order, state, heard = TokenOrder(grammar), grammar.start(), HeardBeats(grammar, bar_beats)
    ids = [tokenizer.vocabulary.bos, *ids]
    for token in ids:
        state = grammar.advance(state, token)
    heard.read(ids)
    candidates = order.candidates(state)
    logits_R = np.zeros(candidates.high - candidates.low, np.float32)
    repetition = Repetition(grammar, order, tokenizer.strikes_per_id > 0, STRENGTH)
    repetition.prefer(logits_R, candidates, heard, state)
    return {int(order.ids[candidates.low + n]): float(logits_R[n]) for n in np.flatnonzero(logits_R)}


def test_what_followed_one_bar_before_is_preferred_token_by_token() -> None:
    bar = [*beat((60, STRUCK), (64, OTHER_STRUCK)), *beat((50, STRUCK)), *beat(), *beat((70, STRUCK))]
    ids = [*bar, FIRST_TEMPO + 3]
    assert bonus(ids) == {FIRST_PITCH + 60: STRENGTH}
    ids += [FIRST_PITCH + 60]
    assert bonus(ids) == {STRUCK: STRENGTH * CODE_SHARE}
    ids += [OTHER_STRUCK]  # another pattern than before; the next pitch is preferred all the same
    assert bonus(ids) == {FIRST_PITCH + 64: STRENGTH}
    ids += [FIRST_PITCH + 65]
    assert bonus(ids) == {}, "this pitch was not heard there"
    ids += [STRUCK]
    assert bonus(ids) == {}, "the next beat is not preferred"


def test_the_bar_whose_beats_before_are_more_alike_counts_more() -> None:
    first = [*beat((60, STRUCK)), *beat((61, STRUCK)), *beat((62, STRUCK)), *beat((63, STRUCK))]
    second = [*beat((70, STRUCK)), *beat((71, STRUCK)), *beat((72, STRUCK)), *beat((73, STRUCK))]
    found = bonus([*first, *second, *first, FIRST_TEMPO])
    assert found.keys() == {FIRST_PITCH + 60, FIRST_PITCH + 70}
    assert found[FIRST_PITCH + 70] > 100 * found[FIRST_PITCH + 60], "it followed the first bar before, too"
    assert sum(found.values()) == pytest.approx(STRENGTH)


def test_held_notes_and_beats_at_other_places_are_not_preferred() -> None:
    bar = [*beat((60, STRUCK)), *beat((61, STRUCK)), *beat((62, STRUCK)), *beat((63, HELD))]
    assert bonus([*bar, *bar[:-3], *beat()]) == {}, "what came there is held"
    assert bonus([*bar, *bar[:-3], *beat((63, HELD))[:2]]) == {}
    assert bonus(bar) == bonus([*bar[:-2]]) == {}, "no earlier bar"
    assert bonus([*bar, FIRST_TEMPO], bar_beats=3) == {FIRST_PITCH + 61: STRENGTH}
    assert bonus([]) == {}


def test_bar_tokens_decide_which_beats_are_compared() -> None:
    tokenizer = toy_tokenizer("base", bars=True)
    bars = tokenizer.vocabulary.offset(Kind.BAR)

    def placed(position: int, *cells: tuple[int, int]) -> list[int]:
        tokens = beat(*cells)
        return [tokens[0], bars + position - 1, *tokens[1:]]

    ids = [*placed(1, (60, STRUCK)), *placed(2, (62, STRUCK)), *placed(1, (64, STRUCK)), *placed(2)]
    assert bonus(ids, tokenizer) == {FIRST_PITCH + 62: STRENGTH}
    assert bonus([*ids, FIRST_TEMPO], tokenizer) == {}, "the position comes first"
    long = [token for position in (*range(1, 9), 8, 8) for token in placed(position, (60, STRUCK))]
    assert bonus([*long, *placed(8)], tokenizer) == {}, "the token of position 8 stands for later ones, too"
    unplaced = [*beat((60, STRUCK)), *beat(), *beat(), *beat(), *beat()]
    assert bonus(unplaced, tokenizer) == {FIRST_PITCH + 60: STRENGTH}, "bars of four beats are counted"


@pytest.mark.parametrize("options", LAYOUTS)
@settings(max_examples=15)
@given(piece=pieces())
def test_the_beats_that_are_read_are_those_of_the_piece(options: dict[str, Any], piece: Piece) -> None:
    tokenizer = toy_tokenizer(**options)
    ids = tokenizer.encode(piece).ids.tolist()
    whole, stepwise = (HeardBeats(tokenizer.grammar, 4) for _ in range(2))
    whole.read(ids)
    for end in range(len(ids) + 1):
        stepwise.read(ids[:end])
    assert whole.beats == stepwise.beats
    cells = tokenizer.decode(ids).cells
    held = (cells.sustain & ~cells.onset & np.uint64(1)) != 0
    named = np.ones(held.size, bool) if tokenizer.ties == "repeat" else ~held
    expected: list[list[int]] = [[] for _ in range(piece.n_beats)]
    for beat_number, pitch in zip(cells.beat[named].tolist(), cells.pitch[named].tolist(), strict=True):
        expected[beat_number].append(pitch)
    assert [list(one.cells) for one in whole.beats] == expected
    assert [one.pitches for one in whole.beats] == [sum(1 << pitch for pitch in row) for row in expected]
    position = bar_positions(piece.bar_starts, piece.n_beats)
    if tokenizer.bars and (position != UNKNOWN).all():
        assert [one.position for one in whole.beats] == position.tolist()


def prompt(bar_beats: int) -> Piece:
    """Two bars with a note on each quarter of each beat, with known bars."""
    onset_sec = np.arange(2 * bar_beats * 4) / 8
    pitch = 50 + np.arange(onset_sec.size) % (4 * bar_beats)
    beats_sec = np.arange(2 * bar_beats + 1) / 2
    notes = make_notes(onset_sec, onset_sec + 0.1, pitch, np.full(pitch.size, 70))
    return replace(Piece.from_notes(notes, beats_sec), downbeats_sec=beats_sec[::bar_beats])


@pytest.mark.parametrize("options", [{}, {"ties": "implicit"}, {"ties": "explicit"}])
@pytest.mark.parametrize("bar_beats", [3, 4])
def test_bars_resemble_earlier_ones_the_more_the_higher_repeat_is(
    bar_beats: int, options: dict[str, Any]
) -> None:
    lm, first = toy_lm("base", context=256, **options), 2 * bar_beats
    likeness = []
    for repeat in (0.0, 40.0):
        generated = lm.generate_pieces(
            prompt(bar_beats), beats=4 * bar_beats, end="never", pieces=2, repeat=repeat
        )
        assert all(lm.tokenizer.grammar.is_complete(one.ids) for one in generated)
        notes = [one.piece.frame_notes for one in generated]
        likeness.append(np.mean([bar_likeness(n, first, first + 4 * bar_beats, bar_beats) for n in notes]))
    assert likeness[1] > likeness[0] + 0.2


def test_only_the_bars_that_the_model_continues_from_say_how_long_bars_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, piece = [], prompt(3)
    piece = replace(piece, downbeats_sec=piece.beats_sec[[0, 2, 4, 5, 6]])
    original = Generator.generate

    def spy(self: Generator, states: Any, config: GenerationConfig) -> Any:
        seen.extend(state.heard for state in states)
        return original(self, states, config)

    monkeypatch.setattr(Generator, "generate", spy)
    for prompt_beats in (4, 1, -2):
        toy_lm().generate(piece, prompt_beats=prompt_beats, beats=5, end="never", repeat=1)
    assert [[one.position for one in heard.beats[:4]] for heard in seen] == [
        [1, 2, 1, 2],
        [1, 2, 3, 4],
        [1, 1, 1, 1],
    ]


@pytest.mark.parametrize("options", [{}, {"ties": "explicit", "bars": True}])
def test_a_piece_is_the_same_in_a_batch_and_in_a_stream(options: dict[str, Any]) -> None:
    lm: PianoLM = toy_lm(**options)
    settings: dict[str, Any] = {**HOT, "beats": 12, "end": "never", "repeat": 2.0}
    several = lm.generate_pieces({"a": prompt(4), "b": prompt(3)}, pieces=2, seed=5, **settings)
    alone = lm.generate_pieces(prompt(3), pieces=1, seed=5, **settings)
    assert alone[0].ids.tolist() == several[2].ids.tolist()
    assert (
        alone[0].ids.tolist()
        != lm.generate_pieces(prompt(3), seed=5, **{**settings, "repeat": 0})[0].ids.tolist()
    )
    (piece,) = lm.generate(prompt(4), with_prompt=False, seed=5, **settings)
    beats = list(lm.stream(prompt(4), seed=5, **settings))
    assert len(beats) == 12
    assert same(piece, replace(piece, notes=join(beats)))
