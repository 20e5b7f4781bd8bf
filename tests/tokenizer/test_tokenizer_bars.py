"""`bars=True`: a beat says where in its bar it stands, if its piece knows; without the option nothing is otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm import PianoTokenizer, Piece
from pianolm.errors import UserError
from pianolm.music.bars import bar_positions
from pianolm.music.cells import Cells
from pianolm.pipeline.graph import Planner
from pianolm.stages.tokenize import build_tokenizer
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.grammar import Grammar, Phase, State
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.tiny import tiny
from tests.tokenizer.test_tokenizer import NOTHING, VOCABULARY, beat_times, corrupt, random_cells
from tests.tokenizer.velocity.test_segment import random_segment_codec

FIRST, LAST = 4665, 4672
BEATS = 24
FOURS = np.arange(1, BEATS, 4)
CELLS, TIMES = random_cells(1), beat_times(1)
CODEBOOK = complete([NOTHING] * 3, VOCABULARY)
GOLDEN = Path(__file__).parents[1] / "golden"


def made(voiced: bool = False, bars: bool = True, **options: Any) -> PianoTokenizer:
    codec = random_segment_codec(64) if voiced else None
    return PianoTokenizer(CODEBOOK, TempoBins(), codec, bars=bars, **options)


TOKENIZERS = {
    "base": made(),
    "velocity": made(voiced=True),
    "all options": made(voiced=True, held_velocity=False, pitch_order="descending"),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return TOKENIZERS[request.param]


def without(ids: np.ndarray) -> np.ndarray:
    return ids[(ids < FIRST) | (ids > LAST)]


def positions(ids: np.ndarray) -> list[int]:
    """Of every beat, 0 where it says none; a bar token stands right behind its tempo."""
    kinds = VOCABULARY.kind_of[ids]
    tempo_at = np.flatnonzero(kinds == Kind.TEMPO)
    said = kinds[tempo_at + 1] == Kind.BAR
    assert said.sum() == (kinds == Kind.BAR).sum()
    return np.where(said, ids[tempo_at + 1] - FIRST + 1, 0).tolist()


def test_bars_take_the_ids_that_are_allotted_to_them() -> None:
    assert VOCABULARY.ids(Kind.BAR) == slice(FIRST, LAST + 1)
    assert VOCABULARY.ids(Kind.PEDAL) == slice(4601, FIRST)
    assert VOCABULARY.ids(Kind.RESERVED) == slice(LAST + 1, 4720)
    assert VOCABULARY.ids(Kind.AGE) == slice(4720, 4736)
    assert [VOCABULARY.describe(token) for token in (FIRST, LAST)] == ["bar 1", "bar 8"]


def test_a_beat_says_its_position_behind_its_tempo(tokenizer: PianoTokenizer) -> None:
    ids = tokenizer.encode_cells(CELLS, TIMES, FOURS)
    assert tokenizer.grammar.first_problem(ids) is None
    assert tokenizer.grammar.is_complete(ids)
    assert positions(ids) == [4, *([1, 2, 3, 4] * 6)][:BEATS]
    assert np.array_equal(without(ids), tokenizer.encode_cells(CELLS, TIMES))


def test_the_eighth_position_stands_for_all_later_ones(tokenizer: PianoTokenizer) -> None:
    ids = tokenizer.encode_cells(CELLS, TIMES, np.array([0, 11]))
    assert positions(ids) == [*range(1, 9), 8, 8, 8, *range(1, 9), *[8] * 5]
    assert tokenizer.decode(ids).bar_starts.tolist() == [0, 11]


@given(
    st.sampled_from(sorted(TOKENIZERS)),
    st.integers(0, 100),
    st.integers(1, BEATS),
    st.sets(st.integers(0, BEATS)),
)
@settings(max_examples=60)
def test_positions_come_back_and_notes_are_those_without_bars(
    name: str, seed: int, beats: int, starts: set[int]
) -> None:
    tokenizer, times = TOKENIZERS[name], beat_times(seed, beats)
    known = np.array(sorted(starts), np.intp)
    cells = random_cells(seed, 40, beats)
    ids = tokenizer.encode_cells(cells, times, known)
    assert tokenizer.grammar.is_complete(ids)
    assert positions(ids) == np.minimum(bar_positions(known, beats), 8).tolist()
    piece, plain = tokenizer.decode(ids), tokenizer.decode(without(ids))
    assert piece.skipped == 0
    assert np.array_equal(piece.notes, plain.notes)
    assert np.array_equal(piece.beats_sec, plain.beats_sec)
    on_grid = known[known < beats]
    assert np.array_equal(piece.bar_starts[piece.bar_starts >= on_grid.min(initial=beats)], on_grid)
    again = tokenizer.encode(piece).ids
    is_velocity = (
        VOCABULARY.kind_of[ids] == Kind.VELOCITY
    )  # a codec of random velocities may choose another code
    assert np.array_equal(VOCABULARY.kind_of[again], VOCABULARY.kind_of[ids])
    assert np.array_equal(again[~is_velocity], ids[~is_velocity])


def test_without_downbeats_there_are_no_bar_tokens(tokenizer: PianoTokenizer) -> None:
    plain = made(tokenizer.codec is not None, False, **options_of(tokenizer))
    for unknown in (None, np.zeros(0, np.intp), np.array([BEATS])):
        ids = tokenizer.encode_cells(CELLS, TIMES, unknown)
        assert np.array_equal(ids, plain.encode_cells(CELLS, TIMES, FOURS)), (
            "and without the option none ever"
        )
        assert tokenizer.decode(ids).downbeats_sec is None
        assert tokenizer.grammar.is_complete(ids)


def options_of(tokenizer: PianoTokenizer) -> dict[str, Any]:
    return {"held_velocity": tokenizer.held_velocity, "pitch_order": tokenizer.pitch_order}


def test_bar_tokens_may_be_left_out_of_any_beat(tokenizer: PianoTokenizer) -> None:
    ids, rng = tokenizer.encode_cells(CELLS, TIMES, FOURS), np.random.default_rng(0)
    is_bar = VOCABULARY.kind_of[ids] == Kind.BAR
    some = ids[~is_bar | (rng.random(ids.size) < 0.5)]
    assert tokenizer.grammar.is_complete(some)
    piece = tokenizer.decode(some)
    assert piece.skipped == 0
    assert piece.bar_starts.tolist() == np.flatnonzero(np.array(positions(some)) == 1).tolist()
    upbeat = tokenizer.decode(ids[(ids != FIRST)])
    assert upbeat.downbeats_sec is None, "no beat says that it is the first"


def test_without_the_option_the_ids_stay_reserved(tokenizer: PianoTokenizer) -> None:
    plain = made(tokenizer.codec is not None, False, **options_of(tokenizer))
    ids = tokenizer.encode_cells(CELLS, TIMES, FOURS)
    piece = plain.decode(ids)
    assert piece.skipped == ids.size - without(ids).size == BEATS
    assert piece.downbeats_sec is None
    assert not (plain.grammar.table[:, Kind.BAR] >= 0).any()
    assert not (plain.grammar.table == Phase.TEMPO).any()
    problem = plain.grammar.first_problem(ids)
    assert problem is not None
    assert problem.message == "bar 4 found, expected one of PITCH, TEMPO, EOS"


def test_a_bar_stands_only_directly_behind_a_tempo(tokenizer: PianoTokenizer) -> None:
    v = VOCABULARY
    tempo, low, l1 = v.offset(Kind.TEMPO) + 20, v.offset(Kind.PITCH) + 40, 5
    cell = [low, l1] + [v.offset(Kind.VELOCITY)] * (tokenizer.codec is not None)
    fine = [v.bos, tempo, FIRST, *cell, tempo, LAST, tempo, v.eos]
    assert tokenizer.grammar.is_complete(fine)
    assert tokenizer.decode(fine).skipped == 0
    wrong = {  # ids, and tokens that decode leaves out: where a cell breaks off, all of it
        "behind a bar": ([v.bos, tempo, FIRST, FIRST + 1, *cell, v.eos], 1),
        "behind a cell": ([v.bos, tempo, *cell, FIRST, v.eos], 1),
        "in a cell": ([v.bos, tempo, low, FIRST, *cell[1:], v.eos], len(cell) + 1),
        "before the first beat": ([v.bos, FIRST, tempo, *cell, v.eos], 1),
        "at the beginning": ([FIRST, tempo, *cell, v.eos], 1),
        "behind the end": ([v.bos, tempo, *cell, v.eos, FIRST], 1),
    }
    for where, (ids, left_out) in wrong.items():
        problem = tokenizer.grammar.first_problem(ids)
        assert problem is not None, where
        assert ids[problem.position] in (FIRST, FIRST + 1), where
        assert problem.message.endswith("only there may a beat say its position in the bar")
        piece = tokenizer.decode(ids)
        assert piece.skipped == left_out, where
        assert piece.bar_starts.tolist() == ([0] if where == "behind a bar" else []), where


def test_sampled_and_corrupted_sequences_agree_with_the_validator(tokenizer: PianoTokenizer) -> None:
    rng = np.random.default_rng(4)
    grammar, ids, state = tokenizer.grammar, [], tokenizer.grammar.start()
    while len(ids) < 3000:
        allowed = np.flatnonzero(grammar.allowed(state))
        allowed = allowed[allowed != VOCABULARY.eos]
        kind = rng.choice(np.unique(VOCABULARY.kind_of[allowed]))  # so that bars and tempi come often
        ids.append(int(rng.choice(allowed[VOCABULARY.kind_of[allowed] == kind])))
        state = grammar.advance(state, ids[-1])
    drawn = np.array(ids)
    assert grammar.first_problem(ids) is None
    assert set(positions(np.append(drawn, VOCABULARY.eos))) == set(range(9))
    real = tokenizer.encode_cells(random_cells(8, 60, 6), beat_times(8, 6), np.array([0, 4]))
    refused = 0
    for _ in range(400):
        broken = corrupt(real, rng)
        skipped = tokenizer.decode(broken).skipped
        if grammar.is_complete(broken):
            assert skipped == 0
        if grammar.first_problem(broken) is not None:
            refused += 1
            assert skipped > 0
        tokenizer.decode(rng.integers(0, VOCABULARY.size, 40))
    assert refused > 100


def test_after_a_tempo_all_that_follows_a_beat_may_come_and_a_bar() -> None:
    grammar: Grammar = made().grammar
    opened, running = State(Phase.TEMPO), State(Phase.BEAT)
    more = np.flatnonzero(grammar.allowed(opened) & ~grammar.allowed(running))
    assert more.tolist() == list(range(FIRST, LAST + 1))
    assert not (grammar.allowed(running) & ~grammar.allowed(opened)).any()
    assert grammar.advance(opened, FIRST) == running


def test_golden_ids_with_bars_are_the_golden_ids_and_the_bars_of_the_file() -> None:
    golden = PianoTokenizer.from_pretrained(GOLDEN / "tokenizer")
    tokenizer = PianoTokenizer(golden.codebook, golden.tempo, golden.codec, bars=True)
    piece = Piece.from_midi(GOLDEN / "piece.mid")
    assert piece.bar_starts.size > 5
    ids = tokenizer.encode(piece).ids
    assert without(ids).tolist() == json.loads((GOLDEN / "ids.json").read_text())["piece"]["velocity"]
    assert positions(ids) == bar_positions(piece.bar_starts, piece.n_beats).tolist()
    assert tokenizer.encode(replace(piece, downbeats_sec=None)).ids.size == ids.size - piece.n_beats


def test_decoded_bars_are_time_signatures_in_midi(tmp_path: Path) -> None:
    ids = TOKENIZERS["base"].encode_cells(CELLS, TIMES, np.arange(2, BEATS, 3))
    TOKENIZERS["base"].decode(ids).to_midi(tmp_path / "a.mid")
    midi = mido.MidiFile(tmp_path / "a.mid")
    found = [m.numerator for track in midi.tracks for m in track if m.type == "time_signature"]
    assert found == [2, 3], "an upbeat of two, then three in a bar"


def test_saved_and_read_again_and_told_apart(tokenizer: PianoTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = PianoTokenizer.from_pretrained(tmp_path)
    assert again.bars
    assert options_of(again) == options_of(tokenizer)
    ids = tokenizer.encode_cells(CELLS, TIMES, FOURS)
    assert np.array_equal(again.encode_cells(CELLS, TIMES, FOURS), ids)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["format_version"] == 3
    assert saved["bars"] is True
    plain = made(tokenizer.codec is not None, False, **options_of(tokenizer))
    differing = {name for name, value in plain.hashes.items() if value != tokenizer.hashes[name]}
    assert differing == {"vocabulary"}
    assert tokenizer.hashes["vocabulary"] == f"{plain.hashes['vocabulary']}-bars"
    del saved["bars"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="vocabulary found with other contents"):
        PianoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(("options", "version"), [({}, 1), ({"pitch_order": "descending"}, 2)])
def test_a_tokenizer_without_bars_is_saved_as_before(
    options: dict[str, Any], version: int, tmp_path: Path
) -> None:
    made(bars=False, **options).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["format_version"] == version
    assert "bars" not in saved
    assert ("held_velocity" in saved) == (version == 2)


@pytest.mark.parametrize("reserved", [377, 448])
def test_a_vocabulary_without_room_for_bars_is_one_sentence(reserved: int) -> None:
    codebook = complete([NOTHING] * 3, Vocabulary(reserved=reserved))
    assert PianoTokenizer(codebook, TempoBins()).vocabulary.reserved == reserved
    with pytest.raises(UserError, match=rf"bars=true: .*reserved={reserved} found, expected at least 449"):
        PianoTokenizer(codebook, TempoBins(), bars=True)


def test_a_given_tokenizer_keeps_its_bars_without_its_velocities(tmp_path: Path) -> None:
    TOKENIZERS["velocity"].save_pretrained(tmp_path)
    base = build_tokenizer({"mode": "base", "bars": False}, {"tokenizer": tmp_path})
    assert base.codec is None
    assert base.bars, "a given tokenizer decides"


def test_an_option_that_is_off_is_no_part_of_a_fingerprint(tmp_path: Path) -> None:
    """What was published before there were bars is found again."""

    def fingerprint(*overrides: str, **changes: Any) -> str:
        cfg = tiny(tmp_path, "tokenizer=base", *overrides)
        tokenizer = {key: value for key, value in cfg["tokenizer"].items() if key not in changes}
        return Planner({**cfg, "tokenizer": tokenizer}).node("tokenize").fingerprint

    assert fingerprint() == fingerprint(bars=None)
    assert fingerprint("tokenizer.bars=true") != fingerprint()


def test_an_empty_piece_has_no_beat_to_speak_of() -> None:
    nothing = Cells(*(np.zeros(0, kind) for kind in ("i4", "u1", "u8", "u8", "u1")), n_beats=0)
    ids = TOKENIZERS["base"].encode_cells(nothing, np.zeros(1), np.array([0]))
    assert ids.tolist() == [VOCABULARY.bos, VOCABULARY.eos]


def test_real_pieces_come_back_with_their_bars(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("asap/*/**/[A-Z]*.mid"))[::120]
    paths += sorted(shared_data.glob("pop909/POP909/*/*.mid"))[::200]
    assert len(paths) > 5
    tokenizer = TOKENIZERS["base"]
    for path in paths:
        beside = "beat_midi.txt" if "POP909" in path.parts else f"{path.stem}_annotations.txt"
        piece = Piece.from_midi(path, beats=path.with_name(beside))
        ids = tokenizer.encode(piece).ids
        back = tokenizer.decode(ids)
        assert tokenizer.grammar.is_complete(ids)
        assert (back.skipped, back.n_beats) == (0, piece.n_beats)
        assert max(positions(ids)) >= 2, path
        on_grid = piece.bar_starts[piece.bar_starts < piece.n_beats]
        assert np.array_equal(back.bar_starts[back.bar_starts >= on_grid[0]], on_grid), path
        for field in ("onset", "end", "pitch"):
            assert np.array_equal(back.frame_notes[field], piece.frame_notes[field]), path
        assert np.array_equal(tokenizer.encode(back).ids, ids), path
