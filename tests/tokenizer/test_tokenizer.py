from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer, Piece
from pianolm.errors import UserError
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind
from tests.tokenizer.toys import (
    CODEC,
    LAYOUTS,
    VOCABULARY,
    Layout,
    beat_times,
    codebook,
    corrupt,
    made,
    random_cells,
)
from tests.toy_lm import GOLDEN, toy_tokenizer


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


def test_cells_and_tempo_round_trip() -> None:
    tokenizer, cells, times = made(), random_cells(1), beat_times(1)
    ids = tokenizer.encode_cells(cells, times)
    back = tokenizer.decode(ids)
    assert tokenizer.grammar.is_complete(ids)
    assert back.skipped == 0
    for name in ("beat", "pitch", "sustain", "onset"):
        assert np.array_equal(getattr(back.cells, name), getattr(cells, name)), name
    assert np.abs(back.beats_sec - times).max() < 0.07
    assert np.array_equal(tokenizer.encode(back).ids, ids)


def test_the_published_layout_keeps_cells_and_rounds_patterns_and_tempi() -> None:
    tokenizer, cells, times = (
        made(Layout(True, exact=False, tempo="published")),
        random_cells(1),
        beat_times(1),
    )
    ids = tokenizer.encode_cells(cells, times)
    back = tokenizer.decode(ids)
    assert tokenizer.grammar.is_complete(ids)
    assert back.skipped == 0
    assert np.array_equal(back.cells.beat, cells.beat)
    assert np.array_equal(back.cells.pitch, cells.pitch)
    assert not np.array_equal(back.cells.sustain, cells.sustain)
    bpm = 60 / np.diff(times)
    assert np.allclose(60 / np.diff(back.beats_sec), np.floor(bpm / 10) * 10 + 5)
    kinds = {Kind(kind) for kind in VOCABULARY.kind_of[ids]}
    assert kinds == {Kind.BOS, Kind.EOS, Kind.TEMPO, Kind.PITCH, Kind.L1, Kind.L2, Kind.L3, Kind.VELOCITY}


def test_flat_pieces_mask_their_velocities(tmp_path: Path) -> None:
    piece = Piece.from_cells(random_cells(2), beat_times(2))
    piece.to_midi(tmp_path / "x.mid")
    read = Piece.from_midi(tmp_path / "x.mid", beats="tempo_map")
    assert np.array_equal(read.frame_notes, piece.frame_notes)
    assert made().encode(piece.with_flat(True)).loss_mask.all(), "base mode has no velocity tokens to mask"
    encoding = made(Layout(True)).encode(piece.with_flat(True))
    is_velocity = VOCABULARY.kind_of[encoding.ids] == Kind.VELOCITY
    assert np.array_equal(encoding.loss_mask, ~is_velocity)


def test_decode_never_raises_and_gives_something_that_can_be_encoded() -> None:
    rng, tokenizer = np.random.default_rng(0), made()
    real = tokenizer.encode_cells(random_cells(7, 60, 6), beat_times(7, 6))
    for _ in range(300):
        random = rng.integers(0, VOCABULARY.size, int(rng.integers(0, 60)))
        for ids in (random, corrupt(real, rng), rng.integers(-(1 << 62), 1 << 62, 5)):
            piece = tokenizer.decode(ids)
            assert 0 <= piece.skipped <= ids.size
            if piece.n_beats:
                again = tokenizer.encode(piece).ids
                assert tokenizer.grammar.is_complete(again)
                assert tokenizer.decode(again).skipped == 0


def test_a_saved_tokenizer_gives_the_same_ids(layout: Layout, tmp_path: Path) -> None:
    tokenizer, cells, times = made(layout), random_cells(4), beat_times(4)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = PianoTokenizer.from_pretrained(tmp_path)
    assert again.settings == tokenizer.settings
    assert again.hashes == tokenizer.hashes
    ids = tokenizer.encode_cells(cells, times, np.arange(1, 24, 4))
    assert np.array_equal(again.encode_cells(cells, times, np.arange(1, 24, 4)), ids)


def test_layouts_differ_in_the_hash_of_the_vocabulary() -> None:
    plain = made(Layout(True)).hashes
    names = set()
    for layout in LAYOUTS:
        if layout.velocity:
            hashes = made(layout).hashes
            names.add(hashes["vocabulary"].removeprefix(plain["vocabulary"]))
            assert hashes["codebook"] == plain["codebook"]
            assert hashes["velocity"] == plain["velocity"]
            assert (hashes["tempo"] == plain["tempo"]) == (layout.tempo == "log50")
    assert names == {
        "",
        "-bars",
        "-implicit",
        "-bars-implicit",
        "-explicit",
        "-bars-explicit",
        "-three-levels",
    }


def test_a_changed_part_is_noticed(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tempo": "published"}))
    with pytest.raises(UserError, match="tempo found with other contents"):
        PianoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        PianoTokenizer.from_pretrained(tmp_path / "elsewhere")


def test_without_velocities_everything_else_stays(layout: Layout) -> None:
    base = made(layout).without_velocities()
    assert base.mode == "base"
    assert base.hashes == made(layout._replace(velocity=False)).hashes
    assert base.hashes["vocabulary"] == made(layout).hashes["vocabulary"]


def test_parts_that_do_not_fit_are_one_sentence() -> None:
    with pytest.raises(UserError, match="7 tempo bins, but the vocabulary has 50 tempo ids"):
        PianoTokenizer(codebook("untrained"), TempoBins(bins=7))
    with pytest.raises(UserError, match=r"tokenizer\.ties='notes' found, expected one of repeat"):
        PianoTokenizer(codebook("untrained"), TempoBins(), CODEC, ties="notes")


def test_a_decoded_piece_is_written_as_a_piece_with_its_notes_is(tmp_path: Path) -> None:
    """Its notes are known to lie on frames; those of a changed copy are quantized anew."""
    tokenizer = toy_tokenizer()
    rng = np.random.default_rng(0)
    golden = tokenizer.encode(GOLDEN / "dense.mid").ids
    for ids in (golden, *(rng.integers(0, tokenizer.vocabulary.size, 2000) for _ in range(5))):
        piece = tokenizer.decode(ids)
        piece.to_midi(tmp_path / "decoded.mid")
        plain = Piece(piece.notes, piece.beats_sec, piece.flat, piece.downbeats_sec)
        plain.to_midi(tmp_path / "plain.mid")
        assert (tmp_path / "decoded.mid").read_bytes() == (tmp_path / "plain.mid").read_bytes()
        assert np.array_equal(piece.frame_notes, plain.frame_notes)
    fewer = replace(piece, notes=piece.notes[:3])
    assert fewer.frame_notes.size == 3
