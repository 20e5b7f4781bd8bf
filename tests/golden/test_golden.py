"""Ids never change: a saved tokenizer gives the ids that are stored beside it, and reads them as the same piece."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer, Piece
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def tokenizer() -> PianoTokenizer:
    return PianoTokenizer.from_pretrained(HERE / "tokenizer")


@pytest.fixture(scope="module")
def piece() -> Piece:
    return Piece.from_midi(HERE / "piece.mid", default_tempo="use")


def of_mode(tokenizer: PianoTokenizer, mode: str) -> PianoTokenizer:
    return tokenizer if mode == "velocity" else tokenizer.without_velocities()


@pytest.mark.parametrize("name", ["piece", "dense"])
@pytest.mark.parametrize("mode", ["velocity", "base"])
def test_ids_are_those_of_the_file_and_decode_as_the_piece(
    tokenizer: PianoTokenizer, name: str, mode: str
) -> None:
    expected = json.loads((HERE / "ids.json").read_text())[name][mode]
    piece = Piece.from_midi(HERE / f"{name}.mid", default_tempo="use")
    ids = of_mode(tokenizer, mode).encode(piece).ids
    assert ids.tolist() == expected
    kinds = {Kind(kind) for kind in tokenizer.vocabulary.kind_of[ids]}
    assert kinds >= {Kind.L1, Kind.L2, Kind.L3, Kind.PITCH, Kind.TEMPO}
    assert name == "piece" or Kind.L4 in kinds
    back = of_mode(tokenizer, mode).decode(expected)
    assert back.skipped == 0
    for field in ("pitch", "onset", "end"):
        assert np.array_equal(back.frame_notes[field], piece.frame_notes[field])


def test_a_tuned_tempo_changes_nothing_but_the_tempi_and_these_never_change(
    tokenizer: PianoTokenizer,
) -> None:
    tuned = PianoTokenizer(tokenizer.codebook, TempoBins("log50_tuned"), tokenizer.codec)
    first, first_tuning = (tokenizer.vocabulary.offset(kind) for kind in (Kind.TEMPO, Kind.TUNING))
    for name, tuning, checksum in (("piece", 5, "11cc8f84"), ("dense", 6, "19e3d786")):
        piece = Piece.from_midi(HERE / f"{name}.mid", default_tempo="use")
        ids, plain = tuned.encode(piece).ids, tokenizer.encode(piece).ids
        assert ids[1] == first_tuning + tuning
        is_tempo = tokenizer.vocabulary.kind_of[plain] == Kind.TEMPO
        assert np.array_equal(np.delete(ids, 1)[~is_tempo], plain[~is_tempo])
        bins = np.delete(ids, 1)[is_tempo] - first
        assert hashlib.sha256(bytes(bins.tolist())).hexdigest()[:8] == checksum
        assert tuned.decode(ids).skipped == 0
    assert tuned.hashes == {**tokenizer.hashes, "tempo": "8cce9929ec5dae1b"}


def test_hashes_of_the_parts_have_not_changed(tokenizer: PianoTokenizer) -> None:
    settings = json.loads((HERE / "tokenizer" / "tokenizer.json").read_text())
    assert settings["format_version"] == 1
    assert tokenizer.hashes == settings["hashes"]
    assert len(set(tokenizer.hashes.values())) == 4


def test_saving_again_writes_the_same_settings_and_the_same_ids(
    tokenizer: PianoTokenizer, piece: Piece, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        p.relative_to(HERE / "tokenizer") for p in (HERE / "tokenizer").rglob("*") if p.is_file()
    }
    for name in ("tokenizer.json", "velocity/config.json", "velocity/codec.safetensors"):
        assert (tmp_path / name).read_bytes() == (HERE / "tokenizer" / name).read_bytes()
    again = PianoTokenizer.from_pretrained(tmp_path)
    assert np.array_equal(again.encode(piece).ids, tokenizer.encode(piece).ids)
