"""The options of the layout: cells without a strike that carry no velocity, and pitches that descend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer
from pianolm.errors import UserError
from pianolm.music.cells import Cells
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.grammar import Phase
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind
from tests.tokenizer.test_tokenizer import NOTHING, VOCABULARY, beat_times, corrupt, random_cells
from tests.tokenizer.velocity.test_segment import random_segment_codec

OPTIONS = [(False, "ascending"), (True, "descending"), (False, "descending")]


def made(held_velocity: bool = True, pitch_order: str = "ascending", voiced: bool = True) -> PianoTokenizer:
    return PianoTokenizer(
        complete([NOTHING] * 3, VOCABULARY),
        TempoBins(),
        random_segment_codec(64) if voiced else None,
        held_velocity=held_velocity,
        pitch_order=pitch_order,
    )


@pytest.fixture(params=OPTIONS, ids=lambda options: f"held={options[0]}-{options[1]}", scope="module")
def tokenizer(request: pytest.FixtureRequest) -> PianoTokenizer:
    return made(*request.param)


def test_the_same_notes_come_back(tokenizer: PianoTokenizer) -> None:
    cells, beats = random_cells(3), beat_times(3)
    ids = tokenizer.encode_cells(cells, beats)
    assert tokenizer.grammar.first_problem(ids) is None
    assert tokenizer.grammar.is_complete(ids)
    held = int((cells.onset == 0).sum())
    assert held > 20, "there is something to leave out"
    plain = made().encode_cells(cells, beats)
    assert ids.size == plain.size - (0 if tokenizer.held_velocity else held)
    piece, expected = tokenizer.decode(ids), made().decode(plain)
    assert piece.skipped == 0
    assert np.array_equal(piece.notes, expected.notes), "the velocity of a note is that of its strike"


def test_what_is_held_keeps_the_velocity_of_its_strike() -> None:
    tokenizer = made(held_velocity=False)
    mask = np.uint64((1 << 48) - 1)
    cells = Cells(
        beat=np.array([0, 0, 1, 1, 2, 2, 3], np.int32),
        pitch=np.array([60, 64, 60, 64, 60, 64, 70], np.uint8),
        sustain=np.full(7, mask),
        onset=np.array([1, 1, 0, 1, 0, 0, 0], np.uint64),
        segment_velocity=np.array([20, 90, 20, 50, 20, 50, 64], np.uint8),
        n_beats=4,
    )
    ids = tokenizer.encode_cells(cells, np.arange(5.0))
    assert (VOCABULARY.kind_of[ids] == Kind.VELOCITY).sum() == 3
    sounding = tokenizer.decode(ids).cells.segment_velocity
    assert sounding[2] == sounding[4] == sounding[0]
    assert sounding[5] == sounding[3]
    assert sounding[6] == 64, "held from nothing: what base mode says"


def test_pitches_descend_in_the_tokens_and_ascend_in_the_cells() -> None:
    tokenizer = made(pitch_order="descending", voiced=False)
    ids = tokenizer.encode_cells(random_cells(5), beat_times(5))
    beat = np.cumsum(VOCABULARY.kind_of[ids] == Kind.TEMPO)
    is_pitch = VOCABULARY.kind_of[ids] == Kind.PITCH
    pitch, beat = ids[is_pitch], beat[is_pitch]
    assert (np.diff(pitch)[np.diff(beat) == 0] < 0).all()
    cells = tokenizer.decode(ids).cells
    assert (np.diff(cells.pitch.astype(int))[np.diff(cells.beat) == 0] > 0).all()
    again = [*ids[: np.flatnonzero(is_pitch)[1]], pitch[0]]
    problem = tokenizer.grammar.first_problem(again)
    assert problem is not None
    highest = pitch[0] - VOCABULARY.offset(Kind.PITCH)
    assert problem.message.endswith(f"does not descend: the beat already has pitch {highest}")


def test_sampled_and_corrupted_sequences_agree_with_the_validator(tokenizer: PianoTokenizer) -> None:
    rng = np.random.default_rng(4)
    grammar, ids, state = tokenizer.grammar, [], tokenizer.grammar.start()
    while state.phase != Phase.ENDED:
        allowed = np.flatnonzero(grammar.allowed(state))
        if len(ids) < 2000:
            allowed = allowed[allowed != VOCABULARY.eos]
        ids.append(VOCABULARY.eos if VOCABULARY.eos in allowed else int(rng.choice(allowed)))
        state = grammar.advance(state, ids[-1])
    assert tokenizer.decode(ids).skipped == 0
    real = tokenizer.encode_cells(random_cells(8, 60, 6), beat_times(8, 6))
    for _ in range(300):
        broken = corrupt(real, rng)
        skipped = tokenizer.decode(broken).skipped
        if grammar.is_complete(broken):
            assert skipped == 0
        if grammar.first_problem(broken) is not None:
            assert skipped > 0
        tokenizer.decode(rng.integers(0, VOCABULARY.size, 40))


def test_saved_and_read_again_and_told_apart(tokenizer: PianoTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = PianoTokenizer.from_pretrained(tmp_path)
    assert (again.held_velocity, again.pitch_order) == (tokenizer.held_velocity, tokenizer.pitch_order)
    ids = tokenizer.encode_cells(random_cells(6), beat_times(6))
    assert np.array_equal(again.encode_cells(random_cells(6), beat_times(6)), ids)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["format_version"] == 2
    differing = {name for name, value in made().hashes.items() if value != tokenizer.hashes[name]}
    assert differing == ({"velocity"} if not tokenizer.held_velocity else set()) | (
        {"vocabulary"} if tokenizer.pitch_order == "descending" else set()
    )


def test_an_unknown_order_is_one_sentence() -> None:
    with pytest.raises(UserError, match="pitch_order='upwards' found, expected one of ascending, descending"):
        made(pitch_order="upwards")
