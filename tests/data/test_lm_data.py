from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm.data.lm_data import IGNORE, BatchPlan, LMDataModule, WindowReader, _TrainBatches, plan_batch
from pianolm.data.order import TrainingOrder, WindowIndex
from pianolm.data.token_store import TokenStore
from pianolm.errors import UserError
from pianolm.tokens.vocabulary import Kind
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


def batches(store: TokenStore, plan: BatchPlan, rank: int = 0, context: int = 32) -> _TrainBatches:
    reader = WindowReader(store, context)
    order = TrainingOrder(WindowIndex(store, store.split("train"), context), 0, plan.windows)
    return _TrainBatches(reader, order, plan, rank)


def test_labels_are_the_next_tokens_and_pad_stands_at_the_end_only(store: TokenStore) -> None:
    reader = WindowReader(store, 48)
    windows = WindowIndex(store, store.split("train"), 48).training(0, 0)
    batch = reader.batch(windows, len(windows) + 2)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    for row in range(len(windows) + 2):
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        n = int(windows.inputs[row]) if row < len(windows) else 0
        assert (ids[:n] != PAD).all()
        assert (ids[n:] == PAD).all()
        assert (labels[n:] == IGNORE).all()
        following, given = labels[:n][:-1], ids[:n][1:]
        assert torch.equal(following[following != IGNORE], given[following != IGNORE])


def test_velocity_of_flat_pieces_and_nothing_else_is_masked(store: TokenStore) -> None:
    reader = WindowReader(store, 32)
    windows = WindowIndex(store, store.split("train"), 32).training(0, 0)
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
    for windows in (
        WindowIndex(store, everything, 32).training(0, 0),
        WindowIndex(store, everything, 32).validation(),
    ):
        labels = reader.batch(windows, len(windows))["labels"]
        counted = np.bincount(labels[labels != IGNORE].numpy(), minlength=VOCABULARY.size)
        assert reader.n_targets(windows) == counted.sum()
        assert np.array_equal(reader.label_counts(windows), counted)
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
        for name in ("n_targets", "n_tokens", "n_slots"):
            assert {part[step * plan.accumulate][name] for part in parts} == {whole[step][name]}
    labels = whole[3]["labels"]
    assert whole[3]["n_targets"] == (labels != IGNORE).sum()
    assert whole[3]["n_tokens"] == (whole[3]["input_ids"] != PAD).sum()
    assert whole[3]["n_slots"] == labels.numel()


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
    assert (plan.windows, plan.rows, plan.accumulate) == expected


def test_windows_that_cannot_be_shared_name_numbers_that_work() -> None:
    with pytest.raises(UserError, match=r"4 windows.*3 processes.*multiple of 96, such as 96 or 192"):
        plan_batch(settings(), 3)
    with pytest.raises(UserError, match=r"1 windows.*multiple of 64, such as 64$"):
        plan_batch(settings(batch_tokens=32), 2)
    with pytest.raises(UserError, match=r"trainer.context=0, trainer.batch_tokens='many' found"):
        plan_batch(settings(context=0, batch_tokens="many"), 1)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_validation_on_all_processes_is_every_target_once(store: TokenStore, processes: int) -> None:
    found = np.zeros(VOCABULARY.size, np.int64)
    lengths, shapes = set(), set()
    for rank in range(processes):
        data = LMDataModule(store.directory, settings(batch_tokens=32 * 6), 0, processes)
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


def test_rows_that_count_for_bits_per_note_are_performances_whose_velocities_count(store: TokenStore) -> None:
    data = LMDataModule(store.directory, settings(), 0)
    windows = data.validation_windows
    flags = np.concatenate([batch["performance"] for batch in data.val_dataloader()])
    rows = [store.pieces[piece] for piece in windows.piece]
    assert flags[: len(windows)].tolist() == [row.kind == "performance" and not row.flat for row in rows]
    assert not flags[len(windows) :].any()


def test_flat_performances_count_where_there_are_no_velocities(tmp_path: Path) -> None:
    store = write_store(tmp_path, [ToyPiece(sequence(0, mode="base"), flat=True)], mode="base")
    windows = WindowIndex(store, [0], 32).validation()
    assert WindowReader(store, 32).batch(windows, len(windows))["performance"].all()


def test_val_tokens_takes_a_fixed_part(store: TokenStore) -> None:
    picked = [
        LMDataModule(store.directory, settings(val_tokens=100), seed).validation_windows for seed in (0, 1)
    ]
    assert len(picked[0]) == 3
    assert np.array_equal(picked[0].start, picked[1].start)


def test_without_validation_pieces_training_windows_stand_in_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_store(tmp_path, [ToyPiece(sequence(0, beats=60))])
    with caplog.at_level(logging.INFO):
        windows = LMDataModule(tmp_path, settings(), 0).validation_windows
    assert 0 < len(windows) <= 64
    assert "no piece is for validation" in caplog.text


def test_nothing_to_train_on_is_one_sentence(tmp_path: Path) -> None:
    write_store(tmp_path, [ToyPiece(sequence(0), split="test")])
    with pytest.raises(UserError, match="no piece to train on among 1"):
        LMDataModule(tmp_path, settings(), 0)


def test_unigram_entropy_by_hand(tmp_path: Path) -> None:
    pitch = VOCABULARY.offset(Kind.PITCH)
    train = np.array([VOCABULARY.bos, pitch, pitch, pitch + 1])
    held_out = np.array([VOCABULARY.bos, pitch, pitch + 2])
    write_store(tmp_path, [ToyPiece(train), ToyPiece(held_out, split="validation")])
    total = 3 + VOCABULARY.size
    expected = -(np.log(3 / total) + np.log(1 / total)) / 2
    assert LMDataModule(tmp_path, settings(), 0).unigram_entropy() == pytest.approx(expected)


def test_train_loader_begins_at_the_first_step_and_ends_at_the_last(store: TokenStore) -> None:
    data = LMDataModule(store.directory, settings(micro_batch_tokens=64, max_steps=3), 0)
    loader = data.train_dataloader()
    assert len(list(loader)) == len(loader) == 3 * data.plan.accumulate
