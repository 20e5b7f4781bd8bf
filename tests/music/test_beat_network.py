"""The network in NumPy: files, and windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pianolm.errors import UserError
from pianolm.music import beat_network
from pianolm.music.beat_features import FEATURES
from pianolm.music.beat_network import CONFIG_FILE, GROUP, WEIGHTS_FILE, BeatNetwork
from tests.music.toy_tracker import SIZES, random_network


def features(n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_frames, FEATURES)).astype(np.float32)


def test_long_music_in_windows_has_the_logits_of_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = random_network(), features(403)
    whole = network.logits(x)
    monkeypatch.setattr(beat_network, "_WINDOW_GROUPS", 10)
    assert whole.shape == (403, 2)
    np.testing.assert_allclose(network.logits(x), whole, atol=1e-5)


def test_logits_depend_on_features_within_reach_alone() -> None:
    network, x = random_network(), features(400)
    other = x.copy()
    other[200] += 1
    changed = np.flatnonzero(np.abs(network.logits(other) - network.logits(x)).max(axis=1) > 0)
    assert changed[0] >= 200 - SIZES.reach * GROUP
    assert changed[-1] <= 203 + SIZES.reach * GROUP
    assert changed.size > 3


@pytest.mark.parametrize("n_frames", [1, 3, 4, 5])
def test_music_of_any_length_has_logits(n_frames: int) -> None:
    assert random_network().logits(features(n_frames)).shape == (n_frames, 2)


def test_what_is_saved_is_loaded_in_16_bits(tmp_path: Path) -> None:
    network, x = random_network(), features(100)
    network.save(tmp_path)
    loaded = BeatNetwork.from_directory(tmp_path)
    np.testing.assert_allclose(loaded.logits(x), network.logits(x), atol=0.02)
    assert load_file(tmp_path / WEIGHTS_FILE)["input.weight"].dtype == np.float16
    assert loaded.fingerprint != network.fingerprint  # of the rounded weights
    assert BeatNetwork.from_directory(tmp_path).fingerprint == loaded.fingerprint


def test_matrices_can_be_saved_in_8_bits(tmp_path: Path) -> None:
    network, x = random_network(), features(100)
    network.save(tmp_path, eight_bits=["down.weight"])
    stored = load_file(tmp_path / WEIGHTS_FILE)
    assert stored["down.weight"].dtype == np.int8
    assert stored["up.weight"].dtype == np.float16
    loaded = BeatNetwork.from_directory(tmp_path)
    step = np.abs(network.tensors["down.weight"]).max(axis=1, keepdims=True) / 127
    assert (np.abs(loaded.tensors["down.weight"] - network.tensors["down.weight"]) <= 0.501 * step).all()
    np.testing.assert_allclose(loaded.logits(x), network.logits(x), atol=0.1)


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    random_network().save(tmp_path, eight_bits=["down.weight"])
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["down.weight.scale"] = tensors["down.weight.scale"][1:]
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(UserError, match=r"down\.weight\.scale has no matrix of as many rows"):
        BeatNetwork.from_directory(tmp_path)


@pytest.mark.parametrize("change", ["shape", "missing", "nan", "garbage", "no file"])
def test_damaged_weights_are_refused(tmp_path: Path, change: str) -> None:
    random_network().save(tmp_path)
    path = tmp_path / WEIGHTS_FILE
    tensors = load_file(path)
    if change == "shape":
        save_file({**tensors, "input.bias": np.zeros(9, np.float16)}, path)
    elif change == "missing":
        save_file({name: t for name, t in tensors.items() if name != "input.bias"}, path)
    elif change == "nan":
        save_file({**tensors, "input.bias": np.full(SIZES.stem, np.nan, np.float16)}, path)
    elif change == "garbage":
        path.write_bytes(b"no weights")
    else:
        path.unlink()
    with pytest.raises(UserError, match=WEIGHTS_FILE):
        BeatNetwork.from_directory(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [{"stem": 0}, {"width": 10**6}, {"dilations": [0]}, {"dilations": 3}, {"format": "x"}, {"stem": "a"}],
)
def test_damaged_sizes_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    random_network().save(tmp_path)
    path = tmp_path / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(UserError, match=CONFIG_FILE):
        BeatNetwork.from_directory(tmp_path)
