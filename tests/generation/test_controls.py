"""Generation with levels by an untrained model. How well a trained one obeys is measured in `experiments/controls`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pianolm import PianoLM, Piece
from pianolm.errors import UserError
from pianolm.lm.llama import CONTROL_SHARE
from pianolm.music.beats import FRAMES
from pianolm.tokenizer.controls import LOUDNESS_CENTRES
from pianolm.tokenizer.vocabulary import CONTROLS, Kind
from tests.generation.tools import HOT, toy_lm


def controlled_lm(context: int = 600, **options: Any) -> PianoLM:
    lm = toy_lm(context=context, **options)
    setattr(lm.model.config, CONTROL_SHARE, 0.5)
    return lm


@pytest.fixture(
    params=[{}, {"bars": True, "mode": "base"}, {"ties": "explicit", "bars": True, "tempo": "log50_tuned"}],
    ids=str,
    scope="module",
)
def lm(request: pytest.FixtureRequest) -> PianoLM:
    return controlled_lm(**request.param)


def said(lm: PianoLM, ids: np.ndarray) -> list[tuple[int, str]]:
    """Each control with the number of beats before it."""
    v = lm.tokenizer.vocabulary
    kinds = v.kind_of[ids]
    return [
        (int((kinds[:at] == Kind.TEMPO).sum()), v.describe(int(ids[at])))
        for at in np.flatnonzero(np.isin(kinds, CONTROLS))
    ]


def test_levels_are_said_at_the_beginning_and_where_they_change(lm: PianoLM) -> None:
    asked: dict[str, Any] = {"density": [5, 5, 1]}
    expected = [(0, "density 5"), (2, "density 1")]
    if lm.tokenizer.codec is not None:
        asked["loudness"] = 2
        expected.insert(0, (0, "loudness 2"))
    (one,) = lm.generate_pieces(beats=6, end="never", seed=3, **asked, **HOT)
    assert said(lm, one.ids) == expected
    assert lm.tokenizer.grammar.is_complete(one.ids)
    assert one.piece.n_beats == 6
    assert one.piece.skipped == 0


def test_a_change_behind_the_last_beat_is_not_said(lm: PianoLM) -> None:
    (one,) = lm.generate_pieces(beats=2, end="never", density=[1, 1, 8], **HOT)
    assert said(lm, one.ids) == [(0, "density 1")]
    assert lm.tokenizer.grammar.is_complete(one.ids)


def test_a_prompt_goes_on_with_controls_and_its_notes_stay(lm: PianoLM) -> None:
    prompt = lm.generate(beats=5, end="never", seed=1, **HOT)[0]
    (one,) = lm.generate_pieces(prompt, beats=4, end="never", density=3, tempo_bpm=90.0, **HOT)
    assert said(lm, one.ids) == [(prompt.n_beats, "density 3")]
    assert lm.tokenizer.grammar.is_complete(one.ids)
    assert one.piece.n_beats == prompt.n_beats + 4
    beats = list(lm.stream(prompt, beats=4, end="never", density=3, tempo_bpm=90.0, **HOT))
    assert len(beats) == 4


def test_levels_hold_where_the_beats_before_are_forgotten() -> None:
    lm = controlled_lm(context=150)
    (one,) = lm.generate_pieces(beats=60, end="never", loudness=4, density=6, seed=2, **HOT)
    assert one.ids.size > 300
    assert len(said(lm, one.ids)) == 2
    state = lm._states(None, None, 1, 2, lm._config(None, {"loudness": 4, "density": 6}))[0]
    state.ids = one.ids.tolist()
    kinds = lm.tokenizer.vocabulary.kind_of[one.ids]
    state.beat_starts = np.flatnonzero(kinds == Kind.TEMPO).tolist()
    seen = np.array(state.visible())
    assert said(lm, seen) == [(0, "loudness 4"), (0, "density 6")]
    assert seen.size <= 150
    assert lm.tokenizer.grammar.first_problem(seen) is None


def test_the_same_seed_gives_the_same_piece_and_controls_matter() -> None:
    lm = controlled_lm()

    def played(**asked: Any) -> Piece:
        return lm.generate(beats=8, end="never", seed=5, **asked)[0]

    assert np.array_equal(played(density=7).notes, played(density=[7]).notes)
    assert not np.array_equal(played(density=7).notes, played(density=1).notes)


@pytest.mark.parametrize(
    ("options", "is_told"),
    [({}, False), ({"ties": "implicit"}, False), ({"ties": "explicit", "bars": True}, True)],
    ids=str,
)
def test_what_is_asked_for_is_what_comes(options: dict[str, Any], is_told: bool) -> None:
    """Also of a model that was not trained with controls, which is not told."""
    lm = controlled_lm(**options) if is_told else toy_lm(context=600, **options)
    played = {}
    for level in (1, 4, 7):
        (loud,) = lm.generate_pieces(beats=16, end="never", loudness=level, seed=1)
        (dense,) = lm.generate_pieces(beats=16, end="never", density=level, seed=1)
        played[level] = loud.piece.notes["velocity"].mean(), dense.piece.notes.size / 16
        for one, said_once in ((loud, f"loudness {level}"), (dense, f"density {level}")):
            assert lm.tokenizer.grammar.is_complete(one.ids)
            assert said(lm, one.ids) == ([(0, said_once)] if is_told else [])
    for level, (velocity, _) in played.items():
        assert velocity == pytest.approx(LOUDNESS_CENTRES[level - 1], abs=12)
    assert played[1][1] < played[4][1] < played[7][1]


def test_levels_follow_a_curve() -> None:
    lm = toy_lm(context=600)
    curve = [1] * 12 + [8] * 12
    notes = lm.generate(beats=24, end="never", loudness=curve, density=curve, seed=4)[0].frame_notes
    first, second = notes[notes["onset"] < 12 * FRAMES], notes[notes["onset"] >= 12 * FRAMES]
    assert first["velocity"].mean() + 30 < second["velocity"].mean()
    assert 2 * first.size < second.size


def test_a_seed_gives_its_piece_whatever_is_generated_beside_it() -> None:
    lm = controlled_lm(context=100)
    asked: dict[str, Any] = {"beats": 20, "end": "never", "loudness": 7, "density": 4, "seed": 9}
    together = lm.generate_pieces(pieces=19, **asked)
    alone = lm.generate_pieces(pieces=1, **asked)
    assert np.array_equal(alone[0].ids, together[0].ids)
    assert lm.generator.context < together[0].ids.size, "the window has slid"
    assert len({one.ids.tobytes() for one in together}) == 19


def test_wrong_levels_are_refused() -> None:
    with pytest.raises(UserError, match=r"loudness: a model of mode base found"):
        toy_lm(mode="base").generate(beats=1, loudness=3)
    with pytest.raises(UserError, match=r"density=9 found, expected a whole number from 1 to 8"):
        toy_lm().generate(beats=1, density=9)
