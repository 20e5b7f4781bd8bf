"""The network: padding, targets, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pianolm.dynamics.batches import Windows
from pianolm.dynamics.features import BIN_CENTRES
from pianolm.dynamics.module import DynamicsModule, bin_shares
from tests.dynamics.toys import SETTINGS, make_store


def test_shares_of_bins_have_the_velocity_as_their_mean() -> None:
    velocity = torch.arange(2, 125)
    shares = bin_shares(velocity)
    assert torch.allclose(shares.sum(-1), torch.ones(123))
    assert torch.allclose(shares.double() @ torch.tensor(BIN_CENTRES), velocity.double(), atol=1e-4)


def test_padding_and_the_other_windows_have_no_influence(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["train"] * 3)
    module = DynamicsModule(SETTINGS).eval()
    torch.nn.init.normal_(module.network.blocks[0].out.weight)  # a new block begins as nothing
    batch = Windows(store, [0, 2], 2, 0, 1, in_order=True)[0]
    assert not batch["is_note"].all()
    alone = Windows(store, [0], 1, 0, 1, in_order=True)[0]
    with torch.no_grad():
        together, single = module(batch), module(alone)
    assert torch.allclose(together[:1, : single.shape[1]], single, atol=1e-5)


def test_a_note_hears_those_to_come(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["train"])
    module = DynamicsModule(SETTINGS).eval()
    torch.nn.init.normal_(module.network.blocks[0].out.weight)
    batch = Windows(store, [0], 1, 0, 1, in_order=True)[0]
    changed = {**batch, "pitch": batch["pitch"].clone()}
    changed["pitch"][0, -1] += 5
    with torch.no_grad():
        assert not torch.allclose(module(batch)[0, 0], module(changed)[0, 0])


def test_it_learns_which_notes_are_loud(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = replace(SETTINGS, max_steps=60)
    module = DynamicsModule(settings)
    windows = Windows(make_store(tmp_path / "store", ["train"] * 4), [0, 1, 2, 3], 4, 0, settings.max_steps)
    optimizer = module.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    losses = []
    for k in range(settings.max_steps):
        loss, _ = module._loss(windows[k])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
