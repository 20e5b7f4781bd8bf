"""The network in torch is that of NumPy, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pianolm.beat_tracking.excerpts import excerpt
from pianolm.beat_tracking.expression import perform
from pianolm.beat_tracking.module import BeatModule, BeatSettings, TorchBeatNetwork, _agreement
from pianolm.music.beat_estimation import load_tracker
from pianolm.music.beat_features import FEATURES
from pianolm.music.beat_network import NetworkSizes
from tests.beat_tracking.toys import OPTIONS, SETTINGS, waltz
from tests.music.toy_tracker import random_network


def test_torch_and_numpy_give_the_same_logits() -> None:
    network = random_network(sizes=NetworkSizes(5, 7, (1, 2, 4)))
    twin = TorchBeatNetwork(network.sizes).eval()
    twin.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in network.tensors.items()})
    x = np.random.default_rng(0).normal(size=(2, 80, FEATURES)).astype(np.float32)
    with torch.no_grad():
        logits = twin(torch.from_numpy(x)).numpy()
    for row, expected in zip(x, logits, strict=True):
        np.testing.assert_allclose(network.logits(row), expected, atol=1e-4)
    back = twin.to_numpy()
    assert back.fingerprint == network.fingerprint


def test_it_learns_the_beats_of_a_waltz_in_every_performance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = replace(SETTINGS, width=24, max_steps=60)
    module = BeatModule(settings)
    optimizer = module.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(settings.max_steps):
        parts = [excerpt(perform(waltz(), rng), 400, rng) for _ in range(4)]
        batch = {
            name: torch.from_numpy(np.stack([getattr(one, name) for one in parts]))
            for name in parts[0]._fields
        }
        loss = module._losses(batch)[0]["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    module.export_weights(tmp_path)
    found = load_tracker(tmp_path)
    assert found.sizes == settings.sizes


def test_unknown_frames_do_not_count_in_the_loss() -> None:
    module = BeatModule(SETTINGS).eval()
    batch = {
        "features": torch.randn(2, 40, FEATURES),
        "target": torch.rand(2, 40, 2),
        "weight": torch.ones(2, 40, 2),
    }
    batch["weight"][:, 20:, 1] = 0
    other = {**batch, "target": batch["target"].clone()}
    other["target"][:, 20:, 1] = 1 - other["target"][:, 20:, 1]
    assert module._losses(batch)[0]["loss"] == module._losses(other)[0]["loss"]
    other["target"][:, :20, 1] = 1 - other["target"][:, :20, 1]
    assert module._losses(batch)[0]["loss"] != module._losses(other)[0]["loss"]


def test_the_validated_f_measure_is_1_for_the_target_itself() -> None:
    played = perform(waltz(), np.random.default_rng(1))
    _, target, weight = excerpt(played, 900, np.random.default_rng(0))
    logits = np.where(target > 0.5, 4.0, -4.0).astype(np.float32)
    beat_f, downbeat_f = _agreement(logits, target, weight)
    assert beat_f > 0.97
    assert downbeat_f > 0.9
    weight[:, 1] = 0
    assert np.isnan(_agreement(logits, target, weight)[1])


def test_hyperparameters_are_the_settings() -> None:
    module = BeatModule(SETTINGS)
    assert BeatSettings(**module.hparams) == SETTINGS
    assert SETTINGS.sizes.dilations == (1, 2, 4, 8, 16)
    assert BeatSettings.from_config(OPTIONS).sizes.stem == 6


@pytest.mark.parametrize("frames", [4, 8, 400])
def test_it_gives_two_logits_a_frame(frames: int) -> None:
    assert BeatModule(SETTINGS)(torch.zeros(1, frames, FEATURES)).shape == (1, frames, 2)
