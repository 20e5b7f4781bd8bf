"""Pictures of codes and bars, and the choice of the bar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pianolm import PianoTokenizer, Piece
from pianolm.data.cell_store import CellStore, CellStoreWriter, PieceRow
from pianolm.errors import UserError
from pianolm.music.cells import FRAMES, Cells, frames_to_cells, resolve_collisions
from pianolm.report.tokens import _beats_of_tokens, _lay_out, _runs, save_bar, save_codebook_atlas
from pianolm.stages.codebook import Bar, _bars, choose_bar, count_use
from pianolm.tokenizer.codebook import Codebook, Patterns
from pianolm.tokenizer.codebook_fit import complete, fit_codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.vocabulary import Kind, Vocabulary

SMALL = Vocabulary(l1=24, l2=12, l3=8)
NOTHING = Patterns(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


class OneCode:
    """A velocity codec that gives every cell the same code."""

    codebook_size, fingerprint = 4, "one"

    def encode(self, cells: Cells) -> np.ndarray:
        return np.full(len(cells), 3)


def random_cells(seed: int, notes: int = 60, beats: int = 16) -> Cells:
    rng = np.random.default_rng(seed)
    onset = rng.integers(0, beats * FRAMES - 1, notes)
    frames, _ = resolve_collisions(
        onset,
        onset + rng.integers(1, 100, notes),
        rng.integers(55, 62, notes).astype(np.uint8),
        rng.integers(1, 128, notes).astype(np.uint8),
        beats * FRAMES,
    )
    return frames_to_cells(frames, beats)


def beat_times(beats: int = 16) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.random.default_rng(1).uniform(0.4, 0.8, beats))])


@pytest.fixture(scope="module")
def untrained() -> Codebook:
    return complete([NOTHING, NOTHING, NOTHING], SMALL)


@pytest.fixture(scope="module")
def fitted() -> Codebook:
    cells = random_cells(0)
    return fit_codebook(cells.sustain, cells.onset, SMALL).codebook


def size_of(path: Path) -> tuple[int, int]:
    height, width = imread(path).shape[:2]
    return width, height


def write_store(directory: Path, pieces: list[tuple[str, Cells, int | None]]) -> CellStore:
    """A store of training pieces of a kind, with a downbeat every so many beats from the second on."""
    with CellStoreWriter(directory) as writer:
        for number, (kind, cells, every) in enumerate(pieces):
            beat = np.arange(cells.n_beats + 1)
            known = (beat % every == 1).astype(np.int8) if every else np.full(beat.size, -1, np.int8)
            counts = (cells.struck_notes, len(cells), cells.n_beats, cells.segment_velocity.size)
            row = PieceRow(str(number), "toy", str(number), "train", kind, False, "none", "x.mid", *counts)
            writer.add(row, cells, beat_times(cells.n_beats), known)
    return CellStore.open(directory)


def test_an_atlas_of_few_codes_is_smaller_than_one_of_many(fitted: Codebook, tmp_path: Path) -> None:
    use = count_use(fitted, random_cells(0, 600, 160))
    assert use.size == SMALL.size
    assert use[SMALL.ids(Kind.PITCH)].sum() == 0
    save_codebook_atlas(fitted, use, tmp_path / "used.png")
    save_codebook_atlas(fitted, np.zeros_like(use), tmp_path / "unused.png")
    width, height = size_of(tmp_path / "used.png")
    assert width == size_of(tmp_path / "unused.png")[0] == 1320
    assert height > size_of(tmp_path / "unused.png")[1] > 300


def test_positions_in_the_bar_are_drawn_beside_the_tempo(untrained: Codebook, tmp_path: Path) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins(), bars=True)
    piece = Piece.from_cells(random_cells(2), beat_times(), bar_starts=np.array([0, 4, 8]))
    beats = _beats_of_tokens(tokenizer, tokenizer.encode(piece).ids, 3, 3)
    assert [tokens[1].label for tokens in beats] == ["bar 4", "bar 1", "bar 2"]
    assert all(one.line == 0 for one in _lay_out(beats[0][:2], 2.5))
    save_bar(piece, tokenizer, tmp_path / "bar.png", 4)
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
    assert size_of(tmp_path / "dense.png")[1] > size_of(tmp_path / "sparse.png")[1]


def test_silent_beats_and_the_end_of_a_piece_are_drawn_too(untrained: Codebook, tmp_path: Path) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins())
    piece = Piece.from_cells(random_cells(3, 0, 6), beat_times(6))
    save_bar(piece, tokenizer, tmp_path / "end.png", 5, n_beats=4)
    assert (tmp_path / "end.png").stat().st_size > 0
    with pytest.raises(UserError, match="first_beat=6"):
        save_bar(piece, tokenizer, tmp_path / "none.png", 6)


@pytest.mark.parametrize("codec", [None, OneCode()])
def test_the_tokens_drawn_are_those_of_the_tokenizer(untrained: Codebook, codec: OneCode | None) -> None:
    tokenizer = PianoTokenizer(untrained, TempoBins(), codec)
    cells = random_cells(4)
    ids = tokenizer.encode(Piece.from_cells(cells, beat_times())).ids
    beats = _beats_of_tokens(tokenizer, ids, 0, cells.n_beats)
    kinds = [token.kind for tokens in beats for token in tokens]
    assert kinds == tokenizer.vocabulary.kind_of[ids[1:-1]].tolist()
    codes = [(b, t) for b, tokens in enumerate(beats) for t in tokens if t.label.startswith("L")]
    roll = np.zeros((cells.n_beats, 128), np.uint64)
    for beat, code in codes:
        roll[beat, code.pitch] |= np.uint64(code.sustain << (6 * code.eighth))
    assert np.array_equal(roll[cells.beat, cells.pitch], cells.sustain)
    assert len(_beats_of_tokens(tokenizer, ids, 15, 1)) == 1
    for tokens in beats:
        placed = _lay_out(tokens, 2.5)
        assert [one.token for one in placed] == tokens
        assert max(one.left + one.width for one in placed) <= 2.5


def test_runs_tell_struck_from_held_over() -> None:
    assert _runs(0b0111_0011, 0b0101_0000, 8) == [(0, 2, False), (4, 6, True), (6, 7, True)]
    assert _runs(0, 0, 48) == []


def test_the_bar_is_the_same_every_time_and_starts_on_a_downbeat(fitted: Codebook, tmp_path: Path) -> None:
    pieces = [
        ("score", random_cells(5), 4),
        ("performance", random_cells(6), 3),
        ("score", random_cells(7), 4),
    ]
    store = write_store(tmp_path / "cells", pieces)
    bar = choose_bar(store, fitted)
    assert bar == choose_bar(CellStore.open(tmp_path / "cells"), fitted)
    assert (bar.piece, bar.first_beat % 3, bar.n_beats) == (1, 1, 3)


def test_a_bar_is_found_where_downbeats_are_missing_or_come_after_the_notes(
    fitted: Codebook, tmp_path: Path
) -> None:
    unknown = choose_bar(write_store(tmp_path / "a", [("score", random_cells(8), None)]), fitted)
    assert unknown.first_beat % 4 == 0
    first_beat_only = frames_to_cells(
        resolve_collisions(
            np.array([3]), np.array([9]), np.array([60], np.uint8), np.array([70], np.uint8), 96
        )[0],
        2,
    )
    store = write_store(tmp_path / "b", [("score", first_beat_only, 2)])
    assert choose_bar(store, fitted) == Bar(0, 0, 2)
    assert _bars(np.array([1, 4, 10]), 10) == [(1, 3), (4, 4)]
