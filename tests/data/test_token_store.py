"""The token store: write and read; errors of incomplete or damaged stores."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from pianolm.data.token_store import TokenStore, TokenStoreWriter
from pianolm.errors import UserError
from pianolm.tokenizer.vocabulary import Kind, Vocabulary
from tests.toy_tokens import VOCABULARY, ToyPiece, ToyTokenizer, sequence, write_store


def pieces() -> list[ToyPiece]:
    return [
        ToyPiece(sequence(0), id="a"),
        ToyPiece(sequence(1, beats=1), id="b", flat=True, kind="score"),
        ToyPiece(sequence(2), split="validation", id="c", notes=7),
    ]


def test_pieces_are_read_as_written(tmp_path: Path) -> None:
    written = pieces()
    store = write_store(tmp_path, written)
    assert (store.mode, store.vocabulary, store.hashes) == ("velocity", VOCABULARY, ToyTokenizer().hashes)
    assert store.tokens.dtype == np.uint16
    for index, piece in enumerate(written):
        assert store.ids(index).tolist() == piece.ids.tolist()
        row = store.pieces[index]
        for name in ("id", "source", "composition", "split", "kind", "flat", "notes"):
            assert getattr(row, name) == getattr(piece, name)
    assert store.split("train") == [0, 1]
    assert store.split("validation") == [2]
    assert store.split("test") == []


def test_beats_start_at_tempo_tokens_and_the_first_at_bos(tmp_path: Path) -> None:
    store = write_store(tmp_path, pieces())
    kinds = VOCABULARY.kind_of[store.tokens]
    begins = {row.start for row in store.pieces}
    assert begins <= set(store.beat_starts.tolist())
    assert store.beat_starts.size == (kinds == Kind.TEMPO).sum()
    for start in store.beat_starts.tolist():
        assert kinds[start] == (Kind.BOS if start in begins else Kind.TEMPO)
    assert (np.diff(store.beat_starts) > 0).all()


def test_a_piece_without_a_tempo_or_bos_still_begins_once(tmp_path: Path) -> None:
    tempo = VOCABULARY.offset(Kind.TEMPO)
    bare = [ToyPiece(np.array([VOCABULARY.bos])), ToyPiece(np.array([tempo, tempo, VOCABULARY.eos]))]
    assert write_store(tmp_path, bare).beat_starts.tolist() == [0, 1, 2]


def test_opening_reads_no_tokens_and_no_rows(tmp_path: Path) -> None:
    write_store(tmp_path, pieces())
    (tmp_path / "pieces.json").write_text("not yet looked at")
    store = TokenStore.open(tmp_path)
    assert isinstance(store.tokens.base, np.memmap) or isinstance(store.tokens, np.memmap)
    with pytest.raises(UserError, match=r"pieces\.json.*stage=tokenize"):
        _ = store.pieces


def test_a_store_is_pickled_as_its_path(tmp_path: Path) -> None:
    store = write_store(tmp_path, pieces())
    packed = pickle.dumps(store)
    assert len(packed) < 1000
    assert pickle.loads(packed).ids(2).tolist() == store.ids(2).tolist()


def test_an_empty_store_opens(tmp_path: Path) -> None:
    store = write_store(tmp_path, [])
    assert store.tokens.size == store.beat_starts.size == len(store.pieces) == 0


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    def stop_midway() -> None:
        with TokenStoreWriter(tmp_path, ToyTokenizer()) as writer:
            writer.add(pieces()[0], pieces()[0].ids)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_midway()
    with pytest.raises(UserError, match=r"no complete store of pianolm tokens.*stage=tokenize"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", json.dumps({"format": "pianolm cells", "version": 1})])
def test_another_format_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(UserError, match="expected pianolm tokens of version 1"):
        TokenStore.open(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path, pieces())
    np.save(tmp_path / "tokens.npy", np.zeros(3, np.uint16))
    with pytest.raises(UserError, match=r"tokens\.npy: 3 tokens found"):
        TokenStore.open(tmp_path)
    (tmp_path / "tokens.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="truncated or damaged"):
        TokenStore.open(tmp_path)
    (tmp_path / "tokens.npy").unlink()
    with pytest.raises(UserError, match="missing from the store"):
        TokenStore.open(tmp_path)


def test_a_vocabulary_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    large = ToyTokenizer(vocabulary=Vocabulary(l1=1 << 16))
    with pytest.raises(UserError, match="at most 65536"):
        TokenStoreWriter(tmp_path, large)
