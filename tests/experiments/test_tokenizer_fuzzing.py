from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from pianolm import PianoTokenizer, Piece
from pianolm.tokenizer.vocabulary import Kind
from tests.experiment import load

fuzz, validator = load("tokenizer-fuzzing/fuzz.py"), load("tokenizer-fuzzing/validator.py")

PIECES = 6


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return fuzz.composed(PIECES)


@pytest.fixture(scope="module")
def tokenizers(pieces: list[Piece]) -> Mapping[str, PianoTokenizer]:
    return fuzz.make_tokenizers(pieces)


@pytest.mark.slow
def test_no_sequence_of_a_short_run_fails(
    tokenizers: Mapping[str, PianoTokenizer], pieces: list[Piece]
) -> None:
    result = fuzz.run(1500, 1500, 0, tokenizers, pieces)
    assert not result["failed"], result["failures"][0]
    assert set(result["random"]) == set(fuzz.RANDOM_KINDS)
    assert set(result["corrupted"]) == {*fuzz.OPERATIONS, "several"}
    for counts in result["tokenizers"].values():  # enough of each case to be meaningful
        assert counts["sequences"] == 250
        assert min(counts["cells"], counts["skipped"], counts["whole"]) > 10


def test_the_same_seed_makes_the_same_sequences(
    tokenizers: Mapping[str, PianoTokenizer], pieces: list[Piece]
) -> None:
    fuzzer = fuzz.Fuzzer(tokenizers["tiny velocity"], pieces)
    for make in (fuzzer.sequences.random, fuzzer.sequences.corrupted):
        first, second, other = (make(np.random.default_rng(seed), 50).ids for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_both_validators_find_the_same_first_problem(
    tokenizers: Mapping[str, PianoTokenizer], pieces: list[Piece]
) -> None:
    for tokenizer in tokenizers.values():
        fuzzer = fuzz.Fuzzer(tokenizer, pieces)
        ids = (
            fuzzer.sequences.random(np.random.default_rng(3), 60).ids
            + fuzzer.sequences.corrupted(np.random.default_rng(4), 60).ids
        )
        positions, _ = validator.well_formed(tokenizer.grammar, ids)
        problems = [tokenizer.grammar.first_problem(sequence) for sequence in ids]
        assert positions.tolist() == [-1 if problem is None else problem.position for problem in problems]
        assert 0 < (positions >= 0).sum() < len(ids)


@pytest.mark.parametrize(
    ("broken", "said", "name"),
    [
        ("skipped", "skipped", "tiny base"),
        ("notes", "cells", "tiny base"),
        ("raises", r"raised ZeroDivisionError", "tiny base"),
        ("bars", "bars begin at", "tiny base bars"),
    ],
)
def test_a_broken_decoder_is_noticed_with_its_ids(
    tokenizers: Mapping[str, PianoTokenizer],
    pieces: list[Piece],
    broken: str,
    said: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = tokenizers[name]
    decode, trigger = tokenizer.decode, tokenizer.vocabulary.offset(Kind.TEMPO) + 2

    def breaks(ids: np.ndarray) -> Piece:
        piece = decode(ids)
        if trigger not in ids or not piece.notes.size:
            return piece
        match broken:
            case "skipped":
                return Piece(piece.notes, piece.beats_sec, piece.flat, skipped=piece.skipped + 1)
            case "notes":
                return Piece(piece.notes[1:], piece.beats_sec, piece.flat, skipped=piece.skipped)
            case "bars":
                return replace(piece, downbeats_sec=None)
            case _:
                raise ZeroDivisionError

    monkeypatch.setattr(tokenizer, "decode", breaks)
    result = fuzz.run(40, 40, 0, {name: tokenizer}, pieces[:1])
    failure = result["failures"][0]
    assert result["failed"] > 10
    assert said in failure["wrong"]
    assert trigger in failure["ids"]
    monkeypatch.undo()
    _, wrong = fuzz.Fuzzer(tokenizer, pieces[:1]).check([np.array(failure["ids"])])
    assert wrong == [""], "the ids of a failure reproduce it alone"
