"""Batches: a function of their number, made anew in any process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from pianolm.beat_tracking.datamodule import EXCERPT_FRAMES, BeatDataModule, Excerpts
from pianolm.data.beat_notes import BeatNotes
from pianolm.errors import UserError
from tests.beat_tracking.toys import OPTIONS, make_store


def test_a_batch_depends_on_its_number_and_the_seed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["train"] * 3)
    batches = Excerpts(store, [0, 1, 2], 4, 0, 10)
    batches[0]  # earlier draws change nothing
    again = pickle.loads(pickle.dumps(Excerpts(store, [0, 1, 2], 4, 0, 10)))
    other = Excerpts(store, [0, 1, 2], 4, 1, 10)
    for name, tensor in batches[7].items():
        assert torch.equal(tensor, again[7][name]), name
        assert tensor.dtype == torch.float32
    assert not torch.equal(batches[7]["features"], batches[6]["features"])
    assert not torch.equal(batches[7]["features"], other[7]["features"])
    assert batches[7]["target"].shape == (4, EXCERPT_FRAMES, 2)
    with pytest.raises(IndexError):
        batches[10]


def test_validation_has_every_piece_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "store", ["train", *["validation"] * 11])
    pieces: list[int] = []
    read = BeatNotes.of_store
    monkeypatch.setattr(
        BeatNotes, "of_store", lambda store, index: pieces.append(index) or read(store, index)
    )
    data = BeatDataModule(tmp_path / "store", OPTIONS, seed=0)
    data.setup()
    batches = list(data.val_dataloader())
    assert [len(batch["features"]) for batch in batches] == [8, 3]
    assert pieces == list(range(1, 12))
    again = list(data.val_dataloader())
    assert all(torch.equal(a["features"], b["features"]) for a, b in zip(batches, again, strict=True))


def test_without_validation_pieces_training_pieces_serve(tmp_path: Path) -> None:
    make_store(tmp_path / "store", ["train"] * 2)
    data = BeatDataModule(tmp_path / "store", OPTIONS, seed=0)
    data.setup()
    assert len(list(data.val_dataloader())) == 1


def test_estimated_beats_are_not_learned(tmp_path: Path) -> None:
    make_store(tmp_path / "store", ["train"] * 2, beat_confidence=0.9)
    with pytest.raises(UserError, match="none of 2 training pieces"):
        BeatDataModule(tmp_path / "store", OPTIONS, seed=0).setup()


def test_data_without_training_pieces_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "store", ["validation"])
    with pytest.raises(UserError, match="none of 0 training pieces"):
        BeatDataModule(tmp_path / "store", OPTIONS, seed=0).setup()
