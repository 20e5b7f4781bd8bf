from __future__ import annotations

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.music.notes import make_notes
from pianolm.music.piece import Piece
from pianolm.tokenizer.controls import (
    DENSITY_BOUNDS,
    LOUDNESS_BOUNDS,
    LOUDNESS_CENTRES,
    Control,
    check_controls,
    checked_levels,
    controls_in_force,
    density_level,
    insert_controls,
    loudness_level,
    without_controls,
)
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.velocity_cells import read_velocities, with_louder
from pianolm.tokenizer.vocabulary import CONTROLS, LEVELS, Kind, Vocabulary
from tests.lm.stage_toys import random_ids
from tests.tokenizer.toys import Layout, made

LAYOUTS = [
    Layout(True),
    Layout(False, "implicit", bars=True),
    Layout(True, "explicit", bars=True, tempo="log50_tuned"),
]


@pytest.fixture(params=LAYOUTS, ids=str, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return made(request.param)


def test_levels_divide_velocities_and_densities() -> None:
    assert [loudness_level([velocity]) for velocity in LOUDNESS_CENTRES] == list(range(1, LEVELS + 1))
    assert [loudness_level(np.full(3, bound)) for bound in LOUDNESS_BOUNDS] == list(range(2, LEVELS + 1))
    assert loudness_level([1, 1]) == 1
    assert [density_level(round(bound * 8), 8) for bound in DENSITY_BOUNDS] == list(range(2, LEVELS + 1))
    assert density_level(0, 4) == 1


def test_controls_are_well_formed_before_tempi_and_say_no_notes(tokenizer: PianoTokenizer) -> None:
    v, grammar = tokenizer.vocabulary, tokenizer.grammar
    ids, _ = random_ids(tokenizer, 5, beats=12)
    plain = tokenizer.decode(ids)
    tempo_at = np.flatnonzero(v.kind_of[ids] == Kind.TEMPO)
    state, before = (
        grammar.start(),
        [],
    )  # beats whose tempo no pending tie precedes: all, where beats are complete
    for at, token in enumerate(ids.tolist()):
        if at in tempo_at:
            before.append(bool(grammar.allows(state, v.offset(Kind.LOUDNESS))))
        state = grammar.after(state, token)
    assert all(before)
    controls = [Control(7, Kind.DENSITY, 8), Control(0, Kind.LOUDNESS, 1), Control(7, Kind.LOUDNESS, 5)]
    told = insert_controls(v, ids, controls)
    assert grammar.is_complete(told)
    kinds = v.kind_of[told]
    assert [v.describe(int(t)) for t in told[np.isin(kinds, CONTROLS)]] == [
        "loudness 1",
        "loudness 5",
        "density 8",
    ]
    assert np.array_equal(without_controls(v, told), ids)
    back = tokenizer.decode(told)
    assert back.skipped == 0
    assert np.array_equal(back.notes, plain.notes)
    assert controls_in_force(v, told.tolist()) == [v.offset(Kind.LOUDNESS) + 4, v.offset(Kind.DENSITY) + 7]
    assert controls_in_force(v, told[: told.size // 4].tolist()) == [v.offset(Kind.LOUDNESS)]


def test_a_control_elsewhere_is_a_problem_and_is_skipped(tokenizer: PianoTokenizer) -> None:
    v, grammar = tokenizer.vocabulary, tokenizer.grammar
    ids, _ = random_ids(tokenizer, 6, beats=4)
    loudness, density = v.offset(Kind.LOUDNESS), v.offset(Kind.DENSITY)
    second = int(np.flatnonzero(v.kind_of[ids] == Kind.TEMPO)[1])
    for at, tokens in ((second, [density, loudness]), (ids.size - 1, [loudness]), (second - 1, [density])):
        wrong = np.insert(ids, at, tokens)
        assert grammar.first_problem(wrong) is not None
        assert tokenizer.decode(wrong).skipped > 0
    for state in (grammar.start(), grammar.after(grammar.start(), v.bos)):
        assert not grammar.allowed(state)[[loudness, density]].any(), "controls are given, not chosen"


def test_fill_sequences_have_no_controls() -> None:
    tokenizer = made(Layout(True))
    v, grammar = tokenizer.vocabulary, tokenizer.fill_grammar
    gap, loudness = v.offset(Kind.GAP), v.offset(Kind.LOUDNESS)
    assert grammar.first_problem([v.bos, loudness, gap]) is not None
    problem = grammar.first_problem([v.bos, gap, loudness])
    assert problem is not None
    assert "expected none of the controls" in problem.message


def test_louder_changes_velocities_alone() -> None:
    tokenizer = made(Layout(True, "explicit"))
    onset = np.arange(16) / 2
    notes = make_notes(onset, onset + 0.9, 60 + np.arange(16), np.full(16, 60))
    ids = tokenizer.encode(Piece.from_notes(notes, np.arange(10.0))).ids
    tempo_at = np.flatnonzero(tokenizer.vocabulary.kind_of[ids] == Kind.TEMPO)
    for by in (20, -30, 90):
        louder = with_louder(tokenizer, ids, by)
        back = tokenizer.decode(ids)
        played = back.frame_notes.copy()
        played["velocity"] = np.clip(played["velocity"].astype(int) + by, 1, 127)
        assert np.array_equal(louder, tokenizer.encode(back.with_velocities_of(played)).ids)
        later = with_louder(tokenizer, ids, by, first_beat=4)
        assert np.array_equal(later[: tempo_at[4]], ids[: tempo_at[4]])
        assert np.array_equal(later[tempo_at[4] :], louder[tempo_at[4] :])


@pytest.mark.parametrize("ties", ["repeat", "implicit", "explicit"])
def test_velocities_of_a_part_are_those_of_the_whole(ties: str) -> None:
    tokenizer = made(Layout(True, ties))
    ids, _ = random_ids(tokenizer, 7, beats=20)
    tempo_at = np.flatnonzero(tokenizer.vocabulary.kind_of[ids] == Kind.TEMPO)
    beat, velocity = read_velocities(tokenizer, ids).struck
    notes = tokenizer.decode(ids).frame_notes
    assert np.array_equal(np.bincount(beat, minlength=20), np.bincount(notes["onset"] // 48, minlength=20))
    part_beat, part_velocity = read_velocities(tokenizer, ids[tempo_at[5] : tempo_at[15]]).struck
    inside = (beat >= 5) & (beat < 15)
    assert np.array_equal(part_beat, beat[inside] - 5)
    assert np.array_equal(part_velocity, velocity[inside])


def test_layouts_without_ids_have_no_controls() -> None:
    tokenizer = made(Layout(exact=False))
    assert not tokenizer.grammar.controls
    with pytest.raises(UserError, match=r"^tokenizer\.exact=false found"):
        check_controls(tokenizer.vocabulary, tokenizer.exact)
    with pytest.raises(UserError, match=r"^tokenizer\.vocabulary\.reserved=499 found, expected 512"):
        check_controls(Vocabulary(reserved=499), exact=True)
    ids = [tokenizer.vocabulary.bos, tokenizer.vocabulary.offset(Kind.LOUDNESS)]
    assert tokenizer.decode(ids).skipped == 1


def test_levels_are_checked() -> None:
    assert checked_levels(3, "loudness") == [3]
    assert checked_levels((1, 8), "loudness") == checked_levels(np.array([1, 8]), "loudness") == [1, 8]
    assert checked_levels(np.int64(3), "loudness") == [3]  # type: ignore[arg-type]  # what a user may give
    for wrong in (0, 9, 2.5, True, "3", [], [1, 9]):
        with pytest.raises(UserError, match=r"^loudness=.* found, expected a whole number from 1 to 8"):
            checked_levels(wrong, "loudness")  # type: ignore[arg-type]  # what a user may give
