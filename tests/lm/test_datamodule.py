from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.lm.batch_plan import BatchPlan, plan_batch
from pianolm.lm.datamodule import TrainBatches, TrainingOrder
from pianolm.lm.loss import IGNORE
from pianolm.lm.window_index import WindowIndex
from pianolm.lm.window_reader import WindowReader
from pianolm.tokenizer.vocabulary import Kind
from tests.lm.toys import toy_data
from tests.toy_tokens import VOCABULARY, ToyPiece, sequence, settings, write_store

PAD = VOCABULARY.pad


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    pieces = [ToyPiece(sequence(seed, beats=8 + seed)) for seed in range(4)]
    pieces += [ToyPiece(sequence(7, beats=9), flat=True, kind="score")]
    pieces += [ToyPiece(sequence(seed, beats=9), split="validation") for seed in (10, 11)]
    pieces += [ToyPiece(sequence(12, beats=9), split="validation", flat=True)]
    pieces += [ToyPiece(sequence(13, beats=1), split="validation", kind="score")]
    return write_store(tmp_path / "tokens", pieces)


def batches(store: TokenStore, plan: BatchPlan, rank: int = 0, context: int = 32) -> TrainBatches:
    reader = WindowReader(store, context)
    order = TrainingOrder(WindowIndex(store, store.split("train"), context), 0, plan.global_rows)
    return TrainBatches(reader, order, plan, rank, 100)


def test_labels_are_the_next_tokens_and_pad_stands_at_the_end_only(store: TokenStore) -> None:
    reader = WindowReader(store, 48)
    rows = WindowIndex(store, store.split("train"), 48).training(0, 0)
    batch = reader.batch(rows, len(rows) + 2)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    filled = np.bincount(rows.row, rows.windows.inputs, minlength=len(rows) + 2).astype(int)
    for row, n in enumerate(filled):
        assert (batch["input_ids"][row, :n] != PAD).all()
        assert (batch["input_ids"][row, n:] == PAD).all()
        assert (batch["labels"][row, n:] == IGNORE).all()
    column = 0
    for at, row in enumerate(rows.row):
        column = 0 if at == 0 or row != rows.row[at - 1] else column
        tokens = store.tokens[rows.windows.start[at] : rows.windows.stop[at]]
        place = row, slice(column, column + tokens.size - 1)
        labels = batch["labels"][place].numpy()
        assert np.array_equal(batch["input_ids"][place].numpy(), tokens[:-1])
        assert np.array_equal(labels[labels != IGNORE], tokens[1:][labels != IGNORE])
        column += tokens.size - 1


def test_positions_begin_anew_in_every_window_of_packed_rows(tmp_path: Path) -> None:
    store = write_store(tmp_path, [ToyPiece(sequence(seed, beats=1)) for seed in range(12)])
    rows = WindowIndex(store, list(range(12)), 64).training(0, 0)
    batch = WindowReader(store, 64).batch(rows, len(rows))
    starts = (batch["position_ids"] == 0).sum(dim=1).numpy()
    assert np.array_equal(starts, np.diff(rows.first))
    assert starts.max() > 1
    alone = rows.take(np.flatnonzero(np.diff(rows.first) == 1))
    assert "position_ids" not in WindowReader(store, 64).batch(alone, len(rows))


def test_transposition_moves_the_pitches_of_a_row_together_and_nothing_else(store: TokenStore) -> None:
    reader = WindowReader(store, 48)
    rows = WindowIndex(store, store.split("train"), 48).training(0, 0)
    plain = reader.batch(rows, len(rows))
    offset, is_pitch = VOCABULARY.offset(Kind.PITCH), VOCABULARY.kind_of == Kind.PITCH
    moves = set()
    for drawn in (0.0, 0.3, 0.5, 0.999):
        moved = reader.batch(rows, len(rows), 5, np.full(len(rows), drawn))
        for name in ("input_ids", "labels"):
            before, after = plain[name].numpy(), moved[name].numpy()
            pitches = (before >= 0) & is_pitch[np.maximum(before, 0)]
            assert np.array_equal(before[~pitches], after[~pitches])
            low, high = min(21, (before[pitches] - offset).min()), max(108, (before[pitches] - offset).max())
            assert low <= (after[pitches] - offset).min()
            assert (after[pitches] - offset).max() <= high
            for row in range(len(rows)):
                by = set((after - before)[row][pitches[row]].tolist())
                assert len(by) <= np.diff(rows.first)[row]
                moves |= by
    assert moves <= set(range(-5, 6))
    assert max(moves) == 5
    assert min(moves) < 0


def test_a_step_draws_the_same_transposition_whoever_asks(store: TokenStore) -> None:
    def pitched(rank: int, processes: int) -> TrainBatches:
        plan = plan_batch(settings(batch_tokens=256), processes)
        order = TrainingOrder(WindowIndex(store, store.split("train"), 32), 0, plan.global_rows)
        return TrainBatches(WindowReader(store, 32), order, plan, rank, 100, transpose=6)

    whole, parts = pitched(0, 1), [pitched(rank, 2) for rank in range(2)]
    for step in (4, 1):
        joined = torch.cat([part[step]["input_ids"] for part in parts])
        assert torch.equal(joined, whole[step]["input_ids"])
    assert not torch.equal(whole[1]["input_ids"], batches(store, whole._plan)[1]["input_ids"])


def test_velocity_of_flat_pieces_and_nothing_else_is_masked(store: TokenStore) -> None:
    reader = WindowReader(store, 32)
    windows = WindowIndex(store, store.split("train"), 32).training(0, 0).windows
    masked = 0
    for row in range(len(windows)):
        labels = reader.labels(windows, row)
        truth = store.tokens[windows.start[row] + 1 : windows.stop[row]]
        is_velocity = VOCABULARY.kind_of[truth] == Kind.VELOCITY
        flat = store.pieces[windows.piece[row]].flat
        assert np.array_equal(labels == IGNORE, is_velocity & flat)
        masked += int((labels == IGNORE).sum())
    assert masked


def test_counts_of_targets_agree_with_the_labels(store: TokenStore) -> None:
    reader = WindowReader(store, 32)
    everything = list(range(len(store.pieces)))
    for rows in (
        WindowIndex(store, everything, 32).training(0, 0),
        WindowIndex(store, everything, 32).validation(),
    ):
        labels = reader.batch(rows, len(rows))["labels"]
        counted = np.bincount(labels[labels != IGNORE].numpy(), minlength=VOCABULARY.size)
        assert reader.n_targets(rows.windows) == counted.sum()
        assert np.array_equal(reader.label_counts(rows.windows), counted)
    assert np.array_equal(
        reader.piece_label_counts(everything), counted
    )  # validation counts each target once


@pytest.mark.parametrize(("processes", "micro"), [(1, None), (1, 64), (2, None), (2, 32), (4, None)])
def test_processes_and_micro_batches_divide_the_same_global_batch(
    store: TokenStore, processes: int, micro: int | None
) -> None:
    whole = batches(store, plan_batch(settings(batch_tokens=256), 1))
    plan = plan_batch(settings(batch_tokens=256, micro_batch_tokens=micro), processes)
    parts = [batches(store, plan, rank) for rank in range(processes)]
    for step in (5, 0, 3):
        rows = [
            part[step * plan.accumulate + j]["input_ids"] for j in range(plan.accumulate) for part in parts
        ]
        assert torch.equal(torch.cat(rows), whole[step]["input_ids"])
        for name in ("n_targets", "n_tokens", "n_inputs"):
            assert {part[step * plan.accumulate][name] for part in parts} == {whole[step][name]}
    labels = whole[3]["labels"]
    assert whole[3]["n_targets"] == (labels != IGNORE).sum()
    assert whole[3]["n_tokens"] == (whole[3]["input_ids"] != PAD).sum()
    assert whole[3]["n_inputs"] == labels.numel()


@pytest.mark.parametrize(
    ("changes", "processes", "expected"),
    [
        ({}, 1, (4, 4, 1)),
        ({"batch_tokens": 10}, 1, (1, 1, 1)),
        ({"micro_batch_tokens": 64}, 1, (4, 2, 2)),
        ({"micro_batch_tokens": 100}, 1, (4, 2, 2)),  # three rows would not divide four
        ({"micro_batch_tokens": 1}, 2, (4, 1, 2)),
        ({"micro_batch_tokens": 10**6}, 2, (4, 2, 1)),
    ],
)
def test_plan(changes: dict[str, object], processes: int, expected: tuple[int, int, int]) -> None:
    plan = plan_batch(settings(**changes), processes)
    assert (plan.global_rows, plan.rows, plan.accumulate) == expected


def test_rows_that_cannot_be_shared_name_numbers_that_work() -> None:
    with pytest.raises(UserError, match=r"4 rows.*3 processes.*multiple of 96, such as 96 or 192"):
        plan_batch(settings(), 3)
    with pytest.raises(UserError, match=r"1 rows.*multiple of 64, such as 64$"):
        plan_batch(settings(batch_tokens=32), 2)


def test_a_given_number_of_micro_batches_is_kept() -> None:
    plan = plan_batch(settings(), 2, accumulate=2)
    assert (plan.global_rows, plan.rows, plan.accumulate) == (4, 1, 2)
    with pytest.raises(UserError, match=r"4 rows.*1 processes with 3 micro-batches each.*such as 96 or 192"):
        plan_batch(settings(), 1, accumulate=3)
    with pytest.raises(UserError, match=r"accumulate_grad_batches=2 and loader\.micro_batch_tokens=64 found"):
        plan_batch(settings(micro_batch_tokens=64), 1, accumulate=2)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_validation_on_all_processes_is_every_target_once(store: TokenStore, processes: int) -> None:
    found = np.zeros(VOCABULARY.size, np.int64)
    lengths, shapes = set(), set()
    for rank in range(processes):
        data = toy_data(store.directory, processes=processes, batch_tokens=32 * 6)
        data.trainer = type("Rank", (), {"global_rank": rank})()  # type: ignore[assignment]
        loader = data.val_dataloader()
        lengths.add(len(loader))
        for batch in loader:
            shapes.add(tuple(batch["labels"].shape))
            labels = batch["labels"][batch["labels"] != IGNORE].numpy()
            found += np.bincount(labels, minlength=VOCABULARY.size)
    reader = WindowReader(store, 32)
    assert np.array_equal(found, reader.piece_label_counts(store.split("validation")))
    assert len(lengths) == len(shapes) == 1


def test_targets_that_count_for_bits_per_note_are_of_performances_whose_velocities_count(
    store: TokenStore,
) -> None:
    data = toy_data(store.directory)
    windows = data.validation_rows.windows
    counted = sum(int(batch["performance"].sum()) for batch in data.val_dataloader())
    pieces = [store.pieces[piece] for piece in windows.piece]
    expected = [
        n * (piece.kind == "performance" and not piece.flat)
        for n, piece in zip(windows.inputs, pieces, strict=True)
    ]
    assert 0 < counted == sum(expected) < windows.inputs.sum()


def test_flat_performances_count_where_there_are_no_velocities(tmp_path: Path) -> None:
    store = write_store(tmp_path, [ToyPiece(sequence(0, mode="base"), flat=True)], mode="base")
    rows = WindowIndex(store, [0], 32).validation()
    batch = WindowReader(store, 32).batch(rows, len(rows))
    assert torch.equal(batch["performance"], batch["input_ids"] != PAD)


def test_a_source_of_weight_0_is_in_neither_training_nor_validation(tmp_path: Path) -> None:
    pieces = [
        ToyPiece(
            sequence(seed, beats=30), split=("train", "validation")[seed // 2 % 2], source="ab"[seed % 2]
        )
        for seed in range(12)
    ]
    store = write_store(tmp_path, pieces)
    only_a = write_store(tmp_path / "a", [piece for piece in pieces if piece.source == "a"])
    data = toy_data(tmp_path, source_weights={"b": 0})
    sources = {store.pieces[piece].source for piece in data.validation_rows.windows.piece}
    assert sources == {"a"}
    trained = {
        store.pieces[piece].source for k in range(20) for piece in data._order.global_batch(k).windows.piece
    }
    assert trained == {"a"}
    assert data.unigram_entropy() == toy_data(only_a.directory).unigram_entropy()
    both = {store.pieces[piece].source for piece in toy_data(tmp_path).validation_rows.windows.piece}
    assert both == {"a", "b"}


def test_val_tokens_takes_a_fixed_part(store: TokenStore) -> None:
    picked = [toy_data(store.directory, seed, val_tokens=100).validation_rows for seed in (0, 1)]
    assert len(picked[0]) == 3
    assert np.array_equal(picked[0].windows.start, picked[1].windows.start)


def test_without_validation_pieces_training_windows_stand_in_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_store(tmp_path, [ToyPiece(sequence(0, beats=60))])
    with caplog.at_level(logging.INFO):
        windows = toy_data(tmp_path).validation_rows
    assert 0 < len(windows) <= 64
    assert "there are no validation pieces" in caplog.text


def test_nothing_to_train_on_is_one_sentence(tmp_path: Path) -> None:
    write_store(tmp_path, [ToyPiece(sequence(0), split="test")])
    with pytest.raises(UserError, match="none of 1 pieces is for training"):
        toy_data(tmp_path)


def test_unigram_entropy_by_hand(tmp_path: Path) -> None:
    pitch = VOCABULARY.offset(Kind.PITCH)
    train = np.array([VOCABULARY.bos, pitch, pitch, pitch + 1])
    held_out = np.array([VOCABULARY.bos, pitch, pitch + 2])
    write_store(tmp_path, [ToyPiece(train), ToyPiece(held_out, split="validation")])
    total = 3 + VOCABULARY.size
    expected = -(np.log(3 / total) + np.log(1 / total)) / 2
    assert toy_data(tmp_path).unigram_entropy() == pytest.approx(expected)


def test_train_loader_begins_at_the_first_step_and_ends_at_the_last(store: TokenStore) -> None:
    data = toy_data(store.directory, micro_batch_tokens=64, max_steps=3)
    loader = data.train_dataloader()
    assert len(list(loader)) == len(loader) == 3 * data.plan.accumulate


@pytest.fixture
def long_store(tmp_path: Path) -> TokenStore:
    return write_store(tmp_path / "long", [ToyPiece(sequence(seed, beats=100)) for seed in range(3)])


def test_a_global_batch_is_a_function_of_seed_and_number(long_store: TokenStore) -> None:
    def order(seed: int = 3) -> TrainingOrder:
        return TrainingOrder(WindowIndex(long_store, [0, 1, 2], 64), seed, 7)

    forward = order()
    batches = [forward.global_batch(k) for k in range(40)]
    for k in (39, 0, 17, 18, 5):  # any order, a fresh object, or one that was asked other things before
        for other in (order(), forward):
            found = other.global_batch(k)
            assert np.array_equal(found.windows.start, batches[k].windows.start)
            assert np.array_equal(found.windows.stop, batches[k].windows.stop)
            assert np.array_equal(found.first, batches[k].first)
    assert not np.array_equal(order(4).global_batch(0).windows.start, batches[0].windows.start)


def test_batches_use_every_window_of_every_epoch_in_turn(long_store: TokenStore) -> None:
    index = WindowIndex(long_store, [0, 1], 64)
    order = TrainingOrder(index, 0, 5)
    joined = np.concatenate([order.global_batch(k).windows.start for k in range(30)])
    epochs = np.concatenate([index.training(0, epoch).windows.start for epoch in range(30)])
    assert np.array_equal(joined, epochs[: joined.size])


def test_a_batch_larger_than_the_data_takes_several_epochs(tmp_path: Path) -> None:
    index = WindowIndex(write_store(tmp_path, [ToyPiece(sequence(0, beats=2))]), [0], 64)
    assert len(TrainingOrder(index, 0, 5).global_batch(3)) == 5


def test_setup_twice_opens_the_store_once(store: TokenStore) -> None:
    data = toy_data(store.directory)
    opened = data.store
    data.setup("fit")
    data.setup("validate")
    assert data.store is opened


def test_testing_scores_every_test_target_once(tmp_path: Path) -> None:
    pieces = [ToyPiece(sequence(0)), ToyPiece(sequence(1, beats=30), split="test")]
    store = write_store(tmp_path / "with", pieces)
    data = toy_data(store.directory)
    counted = sum(int((batch["labels"] != IGNORE).sum()) for batch in data.test_dataloader())
    assert counted == pieces[1].ids.size - 1
    without = write_store(tmp_path / "without", pieces[:1])
    with pytest.raises(UserError, match="none of 1 pieces is for testing; set a larger"):
        toy_data(without.directory).test_dataloader()
