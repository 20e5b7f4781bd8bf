"""The picture of a bar: its tokens are those of the tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pianolm import PianoTokenizer, Piece
from pianolm.errors import UserError
from pianolm.report.bar_tokens import arrange_tokens, beat_tokens
from pianolm.report.tokens import save_bar
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.tempo import TempoBins
from tests.report.toys import OneCode, beat_times, picture_size, random_cells, untrained_codebook
from tests.tokenizer.toys import of_three_beats, three_beats


@pytest.fixture(scope="module")
def untrained() -> Codebook:
    return untrained_codebook()


def test_positions_in_the_bar_are_drawn_beside_the_tempo(untrained: Codebook, tmp_path: Path) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins(), bars=True)
    piece = Piece.from_cells(random_cells(2), beat_times(), bar_starts=np.array([0, 4, 8]))
    beats = beat_tokens(tokenizer, tokenizer.encode(piece).ids, 3, 3)
    assert [tokens[1].label for tokens in beats] == ["bar 4", "bar 1", "bar 2"]
    assert all(one.line == 0 for one in arrange_tokens(beats[0][:2], 2.5))
    save_bar(piece, tokenizer, tmp_path / "bar.png", 4)
    assert (tmp_path / "bar.png").stat().st_size > 0


def test_the_tuning_is_drawn_before_the_first_tempo_and_shifts_all(
    untrained: Codebook, tmp_path: Path
) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins("log50_tuned"), bars=True)
    piece = Piece.from_cells(random_cells(2), np.arange(17) * 60 / 74, bar_starts=np.array([0]))
    ids = tokenizer.encode(piece).ids
    first, second = beat_tokens(tokenizer, ids, 0, 2)
    assert [token.label for token in first[:3]] == ["tuning 9", "74 BPM", "bar 1"]
    assert [token.label for token in second[:2]] == ["74 BPM", "bar 2"]
    assert [placed.line for placed in arrange_tokens(first[:3], 2.5)] == [0, 1, 1]
    assert beat_tokens(tokenizer, ids, 1, 1) == [second], "only where the piece begins"
    save_bar(piece, tokenizer, tmp_path / "bar.png", 0)
    assert (tmp_path / "bar.png").stat().st_size > 0


@pytest.mark.parametrize("codec", [None, OneCode()])
def test_a_bar_is_drawn_in_both_modes_and_grows_with_its_tokens(
    untrained: Codebook, codec: OneCode | None, tmp_path: Path
) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins(), codec)
    dense = Piece.from_cells(random_cells(2), beat_times())
    sparse = Piece.from_cells(random_cells(2, 1), beat_times())
    for name, piece in {"dense": dense, "sparse": sparse}.items():
        save_bar(piece, tokenizer, tmp_path / f"{name}.png", 4, title=name)
    assert picture_size(tmp_path / "dense.png")[1] > picture_size(tmp_path / "sparse.png")[1]


def test_silent_beats_and_the_end_of_a_piece_are_drawn_too(untrained: Codebook, tmp_path: Path) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins())
    piece = Piece.from_cells(random_cells(3, 0, 6), beat_times(6))
    save_bar(piece, tokenizer, tmp_path / "end.png", 5, n_beats=4)
    assert (tmp_path / "end.png").stat().st_size > 0
    with pytest.raises(UserError, match="first_beat=6"):
        save_bar(piece, tokenizer, tmp_path / "none.png", 6)


@pytest.mark.parametrize(
    ("ties", "first_labels"),
    [("implicit", ["(C4)", "(E4)", "(G4)"]), ("explicit", ["duration 7", "duration 0", "duration 5"])],
)
def test_ties_are_drawn_at_their_pitch(ties: str, first_labels: list[str], tmp_path: Path) -> None:
    tokenizer = of_three_beats(True, ties)
    piece = Piece.from_cells(three_beats(), np.arange(4) * 0.5)
    (beat,) = beat_tokens(tokenizer, tokenizer.encode(piece).ids, 1, 1)
    assert [token.label.split(" L")[0] for token in beat if token.starts_tie] == first_labels
    assert [token.pitch for token in beat if token.starts_tie] == [60, 64, 67]
    assert [token.eighth for token in beat if token.pitch == 64][-2:] == [0, 4]
    save_bar(piece, tokenizer, tmp_path / "bar.png", 0, 3)
    assert (tmp_path / "bar.png").stat().st_size > 10_000
