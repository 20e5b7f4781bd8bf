"""`PianoLM.fill`: random gaps with an untrained model. What a trained one writes is measured by `evaluate=fill`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pianolm import PianoLM, Piece
from pianolm.errors import UserError
from pianolm.generation.config import GenerationConfig
from pianolm.lm.llama import FILL_SHARE
from pianolm.music.beats import FRAMES
from pianolm.music.cells import frame_velocity
from pianolm.music.gap import Gap, beats_of_bars, gap_of
from pianolm.music.notes import make_notes
from pianolm.tokenizer.vocabulary import FILL_MARKS, Kind
from tests.generation.tools import HOT, toy_lm

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"bars": True, "mode": "base"},
    {"ties": "explicit", "bars": True, "tempo": "log50_tuned"},
]


def filling_lm(context: int = 1200, **options: Any) -> PianoLM:
    lm = toy_lm(context=context, **options)
    setattr(lm.model.config, FILL_SHARE, 0.5)
    return lm


@pytest.fixture(params=LAYOUTS, ids=str, scope="module")
def lm(request: pytest.FixtureRequest) -> PianoLM:
    return filling_lm(**request.param)


def roll(piece: Piece, has_velocities: bool = True) -> np.ndarray:
    """[beats, 128, frames] velocities that sound."""
    drawn = np.zeros((piece.n_beats, 128, FRAMES), np.uint8)
    cells = piece.cells
    drawn[cells.beat, cells.pitch] = frame_velocity(cells)
    return drawn if has_velocities else drawn > 0


def rows(notes: np.ndarray) -> list[tuple[Any, ...]]:
    return sorted(notes.tolist())


def check_filled(piece: Piece, filled: Piece, gap: Gap) -> None:
    """Beats stay; notes outside stay exactly; what sounds outside is the same; new notes lie in the gap."""
    assert np.array_equal(filled.beats_sec, piece.beats_sec)
    assert np.array_equal(filled.bar_starts, piece.bar_starts)
    onset, new_onset = (
        np.searchsorted(one.beats_sec, one.notes["onset_sec"] + 0.5 * one_frame(one), side="right") - 1
        for one in (piece, filled)
    )
    outside, still = (
        of.notes[(at < gap.first) | (at >= gap.stop) | ~in_register(of, gap)]
        for of, at in ((piece, onset), (filled, new_onset))
    )
    assert rows(outside) == rows(still)
    before, after = roll(piece, has_velocities=False), roll(filled, has_velocities=False)
    assert np.array_equal(before[: gap.first], after[: gap.first])
    assert np.array_equal(before[gap.stop :], after[gap.stop :])


def one_frame(piece: Piece) -> float:
    return float(np.diff(piece.beats_sec).min()) / FRAMES


def in_register(piece: Piece, gap: Gap) -> np.ndarray:
    pitch = piece.notes["pitch"]
    return (pitch >= gap.lowest) & (pitch <= gap.highest)


def random_piece(rng: np.random.Generator, n_beats: int = 24) -> Piece:
    """Long and short notes, many over beat lines, on an uneven grid."""
    beats_sec = np.cumsum(rng.uniform(0.3, 0.9, n_beats + 1))
    count = 40
    at, lasts = rng.uniform(0, n_beats - 0.1, count), rng.choice([0.2, 0.5, 1.0, 3.0, 9.0, 30.0], count)
    at = np.where(rng.random(count) < 0.5, np.floor(at), at)
    onset, end = (
        np.interp(t, np.arange(n_beats + 1), beats_sec) for t in (at, np.minimum(at + lasts, n_beats))
    )
    notes = make_notes(onset, end, rng.integers(52, 70, count), rng.integers(20, 110, count))
    return replace(Piece.from_notes(notes, beats_sec), downbeats_sec=beats_sec[1::4])


def random_gap(rng: np.random.Generator, n_beats: int) -> Gap:
    beats = int(rng.choice([1, 2, 5, n_beats]))
    first = int(rng.choice([0, n_beats - beats, rng.integers(0, n_beats - beats + 1)]))
    return Gap(first, first + beats, *((0, 127), (0, 60), (61, 127))[int(rng.choice(3, p=[0.6, 0.2, 0.2]))])


def check_fills(lm: PianoLM, rng: np.random.Generator, count: int) -> None:
    """Fills random gaps of random pieces, two pieces each."""
    for _ in range(count // 2):
        piece = random_piece(rng)
        gap = random_gap(rng, piece.n_beats)
        for one in lm.fill_pieces(piece, gap, pieces=2, seed=int(rng.integers(99))):
            assert lm.tokenizer.fill_grammar.is_complete(one.ids)
            check_filled(piece, one.piece, gap)
            middle = lm.tokenizer.vocabulary.kind_of[one.ids[-one.new_tokens :]]
            assert (middle == Kind.TEMPO).sum() == gap.n_beats


def test_fills_of_random_gaps_are_valid_and_leave_the_rest_alone(lm: PianoLM) -> None:
    check_fills(lm, np.random.default_rng(1), 6)


@pytest.mark.slow
def test_a_thousand_fills_of_random_gaps(lm: PianoLM) -> None:
    check_fills(lm, np.random.default_rng(2), 334)


def test_a_note_goes_on_behind_the_gap_as_long_as_the_one_that_was_left_out() -> None:
    """60 lies over the left edge, 64 over both, 67 over the right one; 62 and 65 lie inside."""
    lm = filling_lm(ties="explicit", bars=True)
    beats_sec = np.arange(13) * 0.5
    onset = np.array([0.2, 1.3, 1.7, 2.6, 3.1, 4.0])
    end = np.array([2.26, 5.4, 1.9, 3.71, 3.2, 4.4])
    pitch, velocity = [60, 64, 62, 67, 65, 60], [70, 50, 60, 90, 80, 40]
    piece = Piece.from_notes(make_notes(onset, end, np.array(pitch), np.array(velocity)), beats_sec)
    gap = gap_of(piece, (3, 7))
    for filled in lm.fill(piece, (3, 7), pieces=4, **HOT):
        check_filled(piece, filled, gap)
        kept = [row for row in piece.notes.tolist() if row[2] in (60, 64)]
        assert set(kept) <= set(filled.notes.tolist())
        (tail,) = (row for row in filled.notes.tolist() if row[2] == 67 and row[1] > 3.5)
        assert tail[1] == piece.notes["offset_sec"][piece.notes["pitch"] == 67]
        assert 1.5 <= tail[0] < 3.5


def test_the_model_sees_the_gap_and_what_is_nearest_to_it_whatever_the_length(lm: PianoLM) -> None:
    """A short context is filled again and again; the seam of what has been written moves on."""
    piece, short = random_piece(np.random.default_rng(3), 60), filling_lm(96, ties="explicit")
    seen = []
    for one in (lm, short):
        extend = one.generator.make_engine(1).__class__.extend

        def spy(engine: Any, row: int, ids: Any, extend: Any = extend) -> None:
            seen.append(list(ids))
            extend(engine, row, ids)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(one.generator.make_engine(1).__class__, "extend", spy)
            (filled,) = one.fill_pieces(piece, Gap(20, 32), GenerationConfig(**HOT), seed=5)
        check_filled(piece, filled.piece, Gap(20, 32))
        assert one.tokenizer.fill_grammar.is_complete(filled.ids)
    marks = [short.tokenizer.vocabulary.offset(kind) for kind in FILL_MARKS]
    refills = [ids for ids in seen if len(ids) <= 96 and marks[3] in ids]
    assert len(refills) > 3
    for ids in refills:
        assert [token for token in ids if token in marks] == marks
    with_prefix = [ids for ids in refills if ids.index(marks[3]) > ids.index(marks[2]) + 1]
    assert with_prefix
    for ids in with_prefix:
        assert short.tokenizer.fill_grammar.first_problem(ids) is None
    left = [ids.index(marks[1]) - ids.index(marks[0]) for ids in refills]
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0]


def test_a_seed_gives_its_fills_and_a_constant_velocity_stays_one(lm: PianoLM) -> None:
    piece = random_piece(np.random.default_rng(4))
    first, again, other = (lm.fill(piece, (5, 9), pieces=2, seed=seed, **HOT) for seed in (1, 1, 2))
    assert [rows(one.notes) for one in first] == [rows(one.notes) for one in again]
    assert rows(first[0].notes) != rows(other[0].notes)
    flat = piece.notes.copy()
    flat["velocity"] = 71
    (filled,) = lm.fill(Piece.from_notes(flat, piece.beats_sec), (5, 9), **HOT)
    assert set(filled.notes["velocity"].tolist()) == {71}


def test_wrong_gaps_are_one_sentence(lm: PianoLM) -> None:
    piece = random_piece(np.random.default_rng(5))
    for beats, pitches, words in (
        ((5, 5), None, r"beats=\[5, 5\] found, expected the first beat and the one after the last"),
        ((-1, 4), None, "among the beats 0 to 24"),
        ((3, 25), None, "among the beats 0 to 24"),
        ((3, 5), (60, 50), r"pitches=\[60, 50\] found"),
    ):
        with pytest.raises(UserError, match=words):
            lm.fill(piece, beats, pitches)
    with pytest.raises(UserError, match="was not trained to fill gaps"):
        toy_lm().fill(piece, (3, 5))
    with pytest.raises(UserError, match="fill: loudness and density found"):
        lm.fill(piece, (3, 5), config=GenerationConfig(loudness=[3, 4], density=2))
    with pytest.raises(UserError, match="fill: beats and tempo_bpm found, but a gap has its own length"):
        lm.fill(piece, (3, 5), config=GenerationConfig(beats=3, tempo_bpm=90))
    with pytest.raises(UserError, match="fill about"):
        filling_lm(48).fill(random_piece(np.random.default_rng(5), 60), (1, 55))
    assert beats_of_bars(piece, (2, 4)) == (5, 13)
    assert beats_of_bars(piece, (6, 7)) == (21, 24)
    for bars in ((0, 2), (3, 3), (2, 8)):
        with pytest.raises(UserError, match="among the bars 1 to 7"):
            beats_of_bars(piece, bars)
