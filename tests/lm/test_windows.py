from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.window_reader import WindowReader
from pianolm.lm.windows import Rows, Windows, pack
from tests.toy_tokens import TUNED, VOCABULARY, ToyPiece, sequence, write_store


@st.composite
def stores(draw: st.DrawFn) -> TokenStore:
    """Pieces of one to forty beats, some of them silent, some beats longer than a small context."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=5))
    seed, tuned = draw(st.integers(0, 1000)), draw(st.booleans())
    pieces = [
        ToyPiece(sequence(seed + n, beats, most_cells=cells, tuned=tuned))
        for n, (beats, cells) in enumerate(shapes)
    ]
    with tempfile.TemporaryDirectory() as directory:
        store = write_store(Path(directory), pieces, vocabulary=TUNED if tuned else VOCABULARY)
        _ = store.pieces
        return store  # the mapped files stay readable when their names are gone


def check_shape(store: TokenStore, windows: Windows, context: int) -> None:
    """Windows lie in one piece, hold at most T inputs, start at beats and are full where the piece allows it."""
    beats = set(store.beat_starts.tolist())
    longest = np.diff([*store.beat_starts.tolist(), store.tokens.size]).max()
    for piece, start, scored, stop, tuning in zip(*windows.columns, strict=True):
        row = store.pieces[piece]
        assert row.start <= start < scored < stop <= row.stop
        stated = store.vocabulary.tuning_id(store.ids(piece))
        assert tuning == (stated[0] if stated and start > row.start else -1)
        inputs = stop - start - 1 + (tuning >= 0)
        assert inputs <= context
        assert start in beats or longest > context - bool(stated), "a beat longer than a later window"
        assert inputs == context or (stop == row.stop and (start == row.start or inputs > context - longest))


def targets(windows: Windows, counted: bool) -> np.ndarray:
    first = windows.scored if counted else windows.start + 1
    parts = [np.arange(a, b) for a, b in zip(first, windows.stop, strict=True)]
    return np.concatenate(parts)


def all_targets(store: TokenStore) -> np.ndarray:
    return np.concatenate([np.arange(row.start + 1, row.stop) for row in store.pieces])


@settings(max_examples=60)
@given(stores(), st.integers(2, 120))
def test_validation_scores_every_target_exactly_once(store: TokenStore, context: int) -> None:
    windows = WindowIndex(store, list(range(len(store.pieces))), context).validation().windows
    check_shape(store, windows, context)
    assert np.array_equal(np.sort(targets(windows, counted=True)), all_targets(store))


@settings(max_examples=60)
@given(stores(), st.integers(2, 120), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_covers_every_target(store: TokenStore, context: int, seed: int, epoch: int) -> None:
    windows = WindowIndex(store, list(range(len(store.pieces))), context).training(seed, epoch).windows
    check_shape(store, windows, context)
    assert np.array_equal(windows.scored, windows.start + 1)
    assert np.array_equal(np.unique(targets(windows, counted=True)), all_targets(store))


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return write_store(tmp_path, [ToyPiece(sequence(seed, beats=100)) for seed in range(6)])


def test_an_epoch_is_about_as_long_as_the_data(store: TokenStore) -> None:
    context = 128
    index = WindowIndex(store, list(range(6)), context)
    seen = np.mean([index.training(0, epoch).windows.inputs.sum() for epoch in range(20)])
    assert seen / store.tokens.size < 1 + 2 * context * 6 / store.tokens.size


def test_borders_and_order_change_with_the_epoch_and_the_seed(store: TokenStore) -> None:
    index = WindowIndex(store, list(range(6)), 64)
    starts = [index.training(seed, epoch).windows.start for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for other in starts[1:]:
        assert len(set(starts[0].tolist()) ^ set(other.tolist())) > len(starts[0]) / 2
    assert (np.diff(starts[0]) < 0).any()


def test_a_window_from_the_middle_of_a_tuned_piece_begins_with_its_tuning(tmp_path: Path) -> None:
    pieces = [ToyPiece(sequence(seed, beats=40, tuned=True)) for seed in range(4)]
    store, context = write_store(tmp_path, pieces, vocabulary=TUNED), 48
    index, reader = WindowIndex(store, list(range(4)), context), WindowReader(store, context)
    for rows in (index.training(0, 0), index.validation()):
        batch, n_later = reader.batch(rows, len(rows)), 0
        assert len(rows.windows) == len(rows) or "position_ids" in batch
        for at, piece in enumerate(rows.windows.piece.tolist()):
            tokens, labels = reader.tokens(rows.windows, at), reader.labels(rows.windows, at)
            ids = store.ids(piece)
            assert tokens[0] == ids[0] or tokens[0] == ids[1], "BOS or the tuning"
            n_later += int(tokens[0] == ids[1])
            own = slice(rows.windows.scored[at], rows.windows.stop[at])
            assert np.array_equal(labels[labels >= 0], store.tokens[own])
            assert np.array_equal(labels[labels >= 0], tokens[1:][labels >= 0])
        assert n_later > 4
        assert (batch["labels"] >= 0).sum() == reader.n_targets(rows.windows)


def test_pieces_without_a_target_have_no_window(tmp_path: Path) -> None:
    store = write_store(tmp_path, [ToyPiece(np.array([0])), ToyPiece(sequence(0))])
    assert len(WindowIndex(store, [0], 8)) == 0
    assert set(WindowIndex(store, [0, 1], 8).validation().windows.piece.tolist()) == {1}


def test_evenly_spaced_windows_span_the_whole(store: TokenStore) -> None:
    rows = WindowIndex(store, list(range(6)), 32).validation()
    few = rows.evenly_spaced(6)
    assert len(few) == 6
    assert set(few.windows.piece.tolist()) == set(range(6))
    assert rows.evenly_spaced(10**6) is rows


@given(st.lists(st.integers(1, 50), max_size=60))
def test_packed_rows_hold_every_window_once_and_overflow_nowhere(inputs: list[int]) -> None:
    start = np.arange(len(inputs)) * 100
    none = np.full(len(inputs), -1)
    windows = Windows(np.arange(len(inputs)), start, start + 1, start + 1 + np.array(inputs, np.int64), none)
    rows = pack(windows, 50)
    assert np.array_equal(np.sort(rows.windows.start), start)
    filled = np.bincount(rows.row, rows.windows.inputs, minlength=len(rows))
    assert (filled <= 50).all()
    assert (np.diff(rows.first) >= 1).all()
    below_half = np.sort(filled)[:2]
    assert below_half.sum() > 50 or len(rows) < 2  # no two rows would fit into one


def test_take_keeps_rows_together(store: TokenStore) -> None:
    windows = Windows(*(np.arange(4) * n for n in (1, 10, 10, 10, 0)))
    rows = Rows(windows, np.array([0, 2, 3, 4]))
    for index in (slice(0, 2), np.array([2, 0])):
        taken = rows.take(index)
        expected = [[0, 1], [2], [3]]
        chosen = [expected[i] for i in np.arange(3)[index]]
        assert taken.windows.piece.tolist() == [w for row in chosen for w in row]
        assert np.diff(taken.first).tolist() == [len(row) for row in chosen]
    assert rows.row.tolist() == [0, 0, 1, 2]


def test_short_pieces_leave_little_padding(tmp_path: Path) -> None:
    store = write_store(tmp_path, [ToyPiece(sequence(seed, beats=1 + seed % 7)) for seed in range(600)])
    rows = WindowIndex(store, list(range(600)), 512).training(0, 0)
    assert 1 - rows.windows.inputs.sum() / (len(rows) * 512) < 0.02
    assert len(rows) < 600 / 4


def test_source_weights_say_how_often_an_epoch_goes_through_a_source(tmp_path: Path) -> None:
    pieces = [ToyPiece(sequence(seed, beats=2), source="ab"[seed % 2]) for seed in range(100)]
    store = write_store(tmp_path, pieces)
    index = WindowIndex(store, list(range(100)), 4096, {"a": 2.5, "b": 0.5})
    counts = [np.bincount(index.training(0, e).windows.piece, minlength=100) for e in range(20)]
    a, b = np.mean(counts, axis=0).reshape(50, 2).mean(axis=0)
    assert set(np.concatenate(counts)[::2].tolist()) == {2, 3}
    assert set(np.concatenate(counts)[1::2].tolist()) == {0, 1}
    assert (a, b) == (pytest.approx(2.5, abs=0.1), pytest.approx(0.5, abs=0.1))
    assert set(WindowIndex(store, list(range(100)), 64, {"b": 0}).training(0, 0).windows.piece % 2) == {0}


def test_a_source_that_is_not_there_may_have_weight_0(store: TokenStore) -> None:
    assert len(WindowIndex(store, [0], 64, {"scores": 0})) == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"c": 1}, "source_weights.c: no training piece is from this source; expected one of toy"),
        ({"scroes": 0}, "source_weights.scroes: no training piece"),
        ({"scores": 1}, "source_weights.scores: no training piece"),
        ({"toy": -1}, "source_weights.toy=-1 found, expected a number of at least 0"),
        ({"toy": 0}, "all weights are 0"),
    ],
)
def test_invalid_source_weights_are_one_sentence(
    store: TokenStore, weights: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        WindowIndex(store, [0], 64, weights)
