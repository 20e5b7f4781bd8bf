"""The order of tokens: which ids are used and which are left out, and positions in the bar (`tokenizer.bars=true`)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer, Piece
from pianolm.music.bars import bar_positions
from pianolm.music.cells import Cells
from pianolm.tokenizer.vocabulary import Kind
from tests.tokenizer.toys import LAYOUTS, VOCABULARY, Layout, beat_times, made, random_cells, real_pieces

FIRST, LAST = 4665, 4672
BEATS = 24
FOURS = np.arange(1, BEATS, 4)
CELLS, TIMES = random_cells(1), beat_times(1)
GOLDEN = Path(__file__).parents[1] / "golden"
WITH_BARS = [layout for layout in LAYOUTS if layout.bars]


@pytest.fixture(params=WITH_BARS, ids=str)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


def without_bars(ids: np.ndarray) -> np.ndarray:
    return ids[(ids < FIRST) | (ids > LAST)]


def positions(ids: np.ndarray) -> list[int]:
    """Position in the bar of every beat, 0 where none is stated; a bar token stands right behind its tempo."""
    kinds = VOCABULARY.kind_of[ids]
    tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
    stated = kinds[tempo_at + 1] == Kind.BAR
    assert stated.sum() == (kinds == Kind.BAR).sum()
    return np.where(stated, ids[tempo_at + 1] - FIRST + 1, 0).tolist()


def test_ids_out_of_place_are_counted_exactly() -> None:
    tokenizer, v = made(), VOCABULARY
    tempo, l1, l2, pitch = v.offset(Kind.TEMPO) + 20, 5, v.offset(Kind.L2) + 3, v.offset(Kind.PITCH)
    cells = [pitch + 60, l1, pitch + 60, l1, pitch + 61, l2, pitch + 62, l1, l1]
    piece = tokenizer.decode([v.bos, tempo, *cells, v.eos, tempo, v.pad])
    # the second 60 does not ascend (2), 61 breaks off (2), one L1 is surplus, a tempo follows EOS
    assert piece.skipped == 6
    assert piece.cells.pitch.tolist() == [60, 62]


def test_bars_stand_behind_the_tempo(layout: Layout) -> None:
    tokenizer = made(layout)
    ids = tokenizer.encode_cells(CELLS, TIMES, FOURS)
    assert tokenizer.grammar.is_complete(ids)
    assert positions(ids) == [4, *([1, 2, 3, 4] * 6)][:BEATS]
    assert np.array_equal(without_bars(ids), tokenizer.encode_cells(CELLS, TIMES))


def test_the_eighth_position_stands_for_all_later_ones(layout: Layout) -> None:
    ids = made(layout).encode_cells(CELLS, TIMES, np.array([0, 11]))
    assert positions(ids) == [*range(1, 9), 8, 8, 8, *range(1, 9), *[8] * 5]
    assert made(layout).decode(ids).bar_starts.tolist() == [0, 11]


@given(st.sampled_from(WITH_BARS), st.integers(0, 100), st.integers(1, BEATS), st.sets(st.integers(0, BEATS)))
@settings(max_examples=60)
def test_bars_come_back_and_notes_are_those_without_bars(
    layout: Layout, seed: int, beats: int, starts: set[int]
) -> None:
    tokenizer, times = made(layout), beat_times(seed, beats)
    known = np.array(sorted(starts), np.intp)
    ids = tokenizer.encode_cells(random_cells(seed, 40, beats), times, known)
    assert tokenizer.grammar.is_complete(ids)
    assert positions(ids) == np.minimum(bar_positions(known, beats), 8).tolist()
    piece, plain = tokenizer.decode(ids), tokenizer.decode(without_bars(ids))
    assert piece.skipped == 0
    assert np.array_equal(piece.notes, plain.notes)
    assert np.array_equal(piece.beats_sec, plain.beats_sec)
    on_grid = known[known < beats]
    assert np.array_equal(piece.bar_starts[piece.bar_starts >= on_grid.min(initial=beats)], on_grid)
    # on the same scale: after decoding, another tuning may change bins less often
    tuning = [token - VOCABULARY.offset(Kind.TUNING) for token in VOCABULARY.tuning_id(ids)]
    again = tokenizer.encode_cells(piece.cells, piece.beats_sec, piece.bar_starts, tuning=sum(tuning))
    is_velocity = VOCABULARY.kind_of[ids] == Kind.VELOCITY  # a codec of random velocities may choose others
    assert np.array_equal(VOCABULARY.kind_of[again], VOCABULARY.kind_of[ids])
    assert np.array_equal(again[~is_velocity], ids[~is_velocity])


def test_pieces_without_downbeats_have_no_bar_tokens(layout: Layout) -> None:
    tokenizer, plain = made(layout), made(layout._replace(bars=False))
    for unknown in (None, np.zeros(0, np.intp), np.array([BEATS])):
        ids = tokenizer.encode_cells(CELLS, TIMES, unknown)
        assert np.array_equal(ids, plain.encode_cells(CELLS, TIMES, FOURS))
        assert tokenizer.decode(ids).downbeats_sec is None
        assert tokenizer.grammar.is_complete(ids)


def test_bar_tokens_may_be_left_out_of_any_beat(layout: Layout) -> None:
    tokenizer = made(layout)
    ids, rng = tokenizer.encode_cells(CELLS, TIMES, FOURS), np.random.default_rng(0)
    some = ids[(VOCABULARY.kind_of[ids] != Kind.BAR) | (rng.random(ids.size) < 0.5)]
    assert tokenizer.grammar.is_complete(some)
    piece = tokenizer.decode(some)
    assert piece.skipped == 0
    assert piece.bar_starts.tolist() == np.flatnonzero(np.array(positions(some)) == 1).tolist()
    assert tokenizer.decode(ids[ids != FIRST]).downbeats_sec is None, "no beat states position 1"


def test_without_the_option_bar_ids_are_left_out(layout: Layout) -> None:
    plain, ids = made(layout._replace(bars=False)), made(layout).encode_cells(CELLS, TIMES, FOURS)
    piece = plain.decode(ids)
    assert piece.skipped == ids.size - without_bars(ids).size == BEATS
    assert piece.downbeats_sec is None


def test_a_bar_elsewhere_is_left_out_and_named(layout: Layout) -> None:
    tokenizer, v = made(layout), VOCABULARY
    tempo, pitch, l1 = v.offset(Kind.TEMPO) + 20, v.offset(Kind.PITCH) + 40, 5
    cell = [pitch, l1] + [v.offset(Kind.VELOCITY)] * layout.velocity
    begin = [v.bos] + [v.offset(Kind.TUNING)] * (layout.tempo == "log50_tuned")
    fine = [*begin, tempo, FIRST, tempo, LAST, *cell, v.eos]
    assert tokenizer.grammar.is_complete(fine)
    assert tokenizer.decode(fine).skipped == 0
    wrong = {  # ids, and the number that decode leaves out: where a cell breaks off, all of it
        "behind a bar": ([*begin, tempo, FIRST, FIRST + 1, *cell, v.eos], 1),
        "behind a cell": ([*begin, tempo, *cell, FIRST, v.eos], 1),
        "in a cell": ([*begin, tempo, pitch, FIRST, *cell[1:], v.eos], len(cell) + 1),
        "before the first beat": ([*begin, FIRST, tempo, *cell, v.eos], 1),
        "at the beginning": ([FIRST, tempo, *cell, v.eos], 1),
        "behind the end": ([*begin, tempo, *cell, v.eos, FIRST], 1),
    }
    for where, (ids, left_out) in wrong.items():
        problem = tokenizer.grammar.first_problem(ids)
        assert problem is not None, where
        assert ids[problem.position] in (FIRST, FIRST + 1), where
        assert problem.message.endswith("the position in the bar may only follow directly after a tempo")
        piece = tokenizer.decode(ids)
        assert piece.skipped == left_out, where
        assert piece.bar_starts.tolist() == ([0] if where == "behind a bar" else []), where


def test_golden_ids_with_bars_are_the_golden_ids_and_the_bars_of_the_file() -> None:
    golden = PianoTokenizer.from_pretrained(GOLDEN / "tokenizer")
    tokenizer = PianoTokenizer(golden.codebook, golden.tempo, golden.codec, bars=True)
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    assert piece.bar_starts.size > 5
    ids = tokenizer.encode(piece).ids
    assert without_bars(ids).tolist() == json.loads((GOLDEN / "ids.json").read_text())["piece"]["velocity"]
    assert positions(ids) == bar_positions(piece.bar_starts, piece.n_beats).tolist()
    assert tokenizer.encode(replace(piece, downbeats_sec=None)).ids.size == ids.size - piece.n_beats


def test_decoded_bars_are_time_signatures_in_midi(tmp_path: Path) -> None:
    tokenizer = made(Layout(bars=True))
    tokenizer.decode(tokenizer.encode_cells(CELLS, TIMES, np.arange(2, BEATS, 3))).to_midi(tmp_path / "a.mid")
    midi = mido.MidiFile(tmp_path / "a.mid")
    found = [m.numerator for track in midi.tracks for m in track if m.type == "time_signature"]
    assert found == [2, 3], "an upbeat of two, then three in a bar"


def test_an_empty_piece_is_bos_and_eos(layout: Layout) -> None:
    nothing = Cells(*(np.zeros(0, kind) for kind in ("i4", "u1", "u8", "u8", "u1")), n_beats=0)
    ids = made(layout).encode_cells(nothing, np.zeros(1), np.array([0]))
    assert ids.tolist() == [VOCABULARY.bos, VOCABULARY.eos]


def test_real_pieces_come_back_with_their_bars(shared_data: Path) -> None:
    tokenizer = made(Layout(bars=True))
    for piece in real_pieces(shared_data, 160, 300):
        ids = tokenizer.encode(piece).ids
        back = tokenizer.decode(ids)
        assert tokenizer.grammar.is_complete(ids)
        assert (back.skipped, back.n_beats) == (0, piece.n_beats)
        assert max(positions(ids)) >= 2
        on_grid = piece.bar_starts[piece.bar_starts < piece.n_beats]
        assert np.array_equal(back.bar_starts[back.bar_starts >= on_grid[0]], on_grid)
        for field in ("onset", "end", "pitch"):
            assert np.array_equal(back.frame_notes[field], piece.frame_notes[field])
        assert np.array_equal(tokenizer.encode(back).ids, ids)
