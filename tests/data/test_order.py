from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolm.data.order import StepSampler, TrainingOrder, WindowIndex, Windows, evenly_spaced
from pianolm.data.token_store import TokenStore
from tests.toy_tokens import ToyPiece, sequence, write_store


@st.composite
def stores(draw: st.DrawFn) -> TokenStore:
    """Pieces of one to forty beats, some of them silent, some beats longer than a small context."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=5))
    seed = draw(st.integers(0, 1000))
    pieces = [
        ToyPiece(sequence(seed + n, beats, most_cells=cells)) for n, (beats, cells) in enumerate(shapes)
    ]
    with tempfile.TemporaryDirectory() as directory:
        store = write_store(Path(directory), pieces)
        _ = store.pieces
        return store  # the mapped files stay readable when their names are gone


def check_shape(store: TokenStore, windows: Windows, context: int) -> None:
    """Windows lie in one piece, hold at most T inputs, start at beats and are full where the piece allows it."""
    beats = set(store.beat_starts.tolist())
    longest = np.diff([*store.beat_starts.tolist(), store.tokens.size]).max()
    for piece, start, scored, stop in zip(
        windows.piece, windows.start, windows.scored, windows.stop, strict=True
    ):
        row = store.pieces[piece]
        assert row.start <= start < scored < stop <= row.stop
        inputs = stop - start - 1
        assert inputs <= context
        assert start in beats or longest > context
        assert inputs == context or (stop == row.stop and (start == row.start or inputs > context - longest))


def targets(windows: Windows, counted: bool) -> np.ndarray:
    first = windows.scored if counted else windows.start + 1
    parts = [np.arange(a, b) for a, b in zip(first, windows.stop, strict=True)]
    return np.concatenate(parts)


def all_targets(store: TokenStore) -> np.ndarray:
    return np.concatenate([np.arange(row.start + 1, row.stop) for row in store.pieces])


@settings(max_examples=60)
@given(stores(), st.integers(1, 120))
def test_validation_scores_every_target_exactly_once(store: TokenStore, context: int) -> None:
    windows = WindowIndex(store, list(range(len(store.pieces))), context).validation()
    check_shape(store, windows, context)
    assert np.array_equal(np.sort(targets(windows, counted=True)), all_targets(store))


@settings(max_examples=60)
@given(stores(), st.integers(1, 120), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_covers_every_target(store: TokenStore, context: int, seed: int, epoch: int) -> None:
    windows = WindowIndex(store, list(range(len(store.pieces))), context).training(seed, epoch)
    check_shape(store, windows, context)
    assert np.array_equal(windows.scored, windows.start + 1)
    assert np.array_equal(np.unique(targets(windows, counted=True)), all_targets(store))


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return write_store(tmp_path, [ToyPiece(sequence(seed, beats=100)) for seed in range(6)])


def test_an_epoch_is_about_as_long_as_the_data(store: TokenStore) -> None:
    context = 128
    index = WindowIndex(store, list(range(6)), context)
    seen = np.mean([index.training(0, epoch).inputs.sum() for epoch in range(20)])
    assert seen / store.tokens.size < 1 + 2 * context * 6 / store.tokens.size


def test_borders_and_order_change_with_the_epoch_and_the_seed(store: TokenStore) -> None:
    index = WindowIndex(store, list(range(6)), 64)
    starts = [index.training(seed, epoch).start for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for other in starts[1:]:
        assert len(set(starts[0].tolist()) ^ set(other.tolist())) > len(starts[0]) / 2
    assert (np.diff(starts[0]) < 0).any()


def test_a_global_batch_is_a_function_of_seed_and_number(store: TokenStore) -> None:
    def order(seed: int = 3) -> TrainingOrder:
        return TrainingOrder(WindowIndex(store, [0, 1, 2], 64), seed, 7)

    forward = order()
    batches = [forward.global_batch(k) for k in range(40)]
    for k in (39, 0, 17, 18, 5):  # any order, a fresh object, or one that was asked other things before
        for other in (order(), forward):
            found = other.global_batch(k)
            assert np.array_equal(found.start, batches[k].start)
            assert np.array_equal(found.stop, batches[k].stop)
    assert not np.array_equal(order(4).global_batch(0).start, batches[0].start)


def test_batches_use_every_window_of_every_epoch_in_turn(store: TokenStore) -> None:
    index = WindowIndex(store, [0, 1], 64)
    order = TrainingOrder(index, 0, 5)
    joined = np.concatenate([order.global_batch(k).start for k in range(30)])
    epochs = np.concatenate([index.training(0, epoch).start for epoch in range(30)])
    assert np.array_equal(joined, epochs[: joined.size])


def test_a_batch_larger_than_the_data_takes_several_epochs(tmp_path: Path) -> None:
    index = WindowIndex(write_store(tmp_path, [ToyPiece(sequence(0, beats=2))]), [0], 64)
    assert len(TrainingOrder(index, 0, 5).global_batch(3)) == 5


def test_pieces_without_a_target_have_no_window(tmp_path: Path) -> None:
    store = write_store(tmp_path, [ToyPiece(np.array([0])), ToyPiece(sequence(0))])
    assert len(WindowIndex(store, [0], 8)) == 0
    assert set(WindowIndex(store, [0, 1], 8).validation().piece.tolist()) == {1}


def test_evenly_spaced_windows_span_the_whole(store: TokenStore) -> None:
    windows = WindowIndex(store, list(range(6)), 32).validation()
    few = evenly_spaced(windows, 6)
    assert len(few) == 6
    assert set(few.piece.tolist()) == set(range(6))
    assert evenly_spaced(windows, 10**6) is windows


def test_step_sampler_goes_on_but_keeps_its_length() -> None:
    sampler = StepSampler(3, 6)
    assert list(sampler) == [3, 4, 5]
    assert len(sampler) == 6
