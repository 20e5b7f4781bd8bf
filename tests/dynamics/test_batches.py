"""Batches: a function of their number, with hidden velocities that do not leak."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm.data.beat_notes import BeatNotes
from pianolm.dynamics.batches import PlayedPiece, Windows
from pianolm.dynamics.datamodule import DynamicsDataModule
from pianolm.dynamics.features import BIN_WIDTH, UNKNOWN_VELOCITY
from pianolm.errors import UserError
from tests.dynamics.toys import OPTIONS, make_store, played


def test_a_batch_depends_on_its_number_and_the_seed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["train"] * 3)
    windows = Windows(store, [0, 1, 2], 4, 0, 10)
    windows[0]  # earlier draws change nothing
    again = pickle.loads(pickle.dumps(Windows(store, [0, 1, 2], 4, 0, 10)))
    for name, tensor in windows[7].items():
        assert torch.equal(tensor.nan_to_num(), again[7][name].nan_to_num()), name
    assert not torch.equal(windows[7]["velocity"], windows[6]["velocity"])
    assert not torch.equal(windows[7]["velocity"], Windows(store, [0, 1, 2], 4, 1, 10)[7]["velocity"])
    with pytest.raises(IndexError):
        windows[10]


def test_a_velocity_is_either_known_or_learned(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["train"] * 3)
    windows = Windows(store, [0, 1, 2], 8, 0, 20)
    levels, shares = [], []
    for k in range(20):
        batch = windows[k]
        hidden = batch["velocity"] == UNKNOWN_VELOCITY
        assert torch.equal(hidden & batch["is_note"], batch["target"] > 0)
        assert (batch["velocity"][~hidden] * BIN_WIDTH <= 127).all()
        levels += batch["level"].tolist()
        shares += ((batch["target"] > 0).sum(1) / batch["is_note"].sum(1)).tolist()
    assert 0.3 < np.isnan(levels).mean() < 0.7
    assert 0.2 < (np.array(shares) == 1).mean() < 0.5
    assert min(shares) < 0.3


def test_validation_hides_everything_and_tells_the_level(tmp_path: Path) -> None:
    make_store(tmp_path / "store", ["train", "validation", "validation"])
    data = DynamicsDataModule(tmp_path / "store", OPTIONS, seed=0)
    data.setup()
    (batch,) = data.val_dataloader()
    assert len(batch["pitch"]) == 2
    assert ((batch["velocity"] == UNKNOWN_VELOCITY) | ~batch["is_note"]).all()
    assert not torch.isnan(batch["level"]).any()
    (again,) = data.val_dataloader()
    assert torch.equal(batch["target"], again["target"])


def test_half_of_the_windows_are_in_strict_time() -> None:
    rng = np.random.default_rng(0)
    piece = PlayedPiece.of(rolled())
    strict = [(piece.drawn(rng).features.frame % 4 == 0).all() for _ in range(200)]
    assert 0.4 < np.mean(strict) < 0.6
    assert (piece.middle(is_strict=True).features.frame % 4 == 0).all()
    assert not (piece.middle(is_strict=False).features.frame % 4 == 0).all()


def rolled() -> BeatNotes:
    """Music whose chords are rolled."""
    piece = played()
    music = BeatNotes.of_frames(piece.frame_notes, piece.beats_sec, piece.bar_starts)
    return replace(music, onset_beat=music.onset_beat + np.tile([0, 1, 2], music.pitch.size // 3) / 48)


def test_flat_pieces_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "store", ["train"] * 2, flat=True)
    with pytest.raises(UserError, match="none of 2 training pieces has velocities"):
        DynamicsDataModule(tmp_path / "store", OPTIONS, seed=0).setup()
