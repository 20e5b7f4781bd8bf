"""The segment form learns, agrees with the NumPy codec, and numbers its codes from soft to loud."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pianolm.music.cells import Cells
from pianolm.tokenizer.velocity.errors import VelocityErrors
from pianolm.velvq.network_segment import SegmentSettings, SegmentVelVQ, _nearest, number_codes, staircase


def settings(**changes: Any) -> SegmentSettings:
    defaults: dict[str, Any] = {
        "codebook_size": 128,
        "max_segments": 3,
        "lr": 0.2,
        "warmup_steps": 5,
        "decay": 0.9,
        "dead_code_threshold": 0.1,
        "max_steps": 60,
    }
    return SegmentSettings(**{**defaults, **changes})


def drawn(rng: np.random.Generator, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Velocities around a common level, and lengths that fill a beat."""
    level = rng.integers(30, 100, (size, 1))
    velocity = np.clip(level + rng.normal(0, 6, (size, n)), 1, 127).astype(np.uint8)
    length = np.full((size, n), 48 // n, np.uint8)
    return torch.from_numpy(velocity), torch.from_numpy(length)


def train(model: SegmentVelVQ, steps: int = 60) -> None:
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=model.settings.lr)
    for _ in range(steps):
        batch = {}
        for n in (1, 2, 3):
            batch[f"velocity_{n}"], batch[f"length_{n}"] = drawn(rng, n, 1024)
        loss = model.training_losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measured(model: SegmentVelVQ, n: int) -> float:
    rng = np.random.default_rng(1)
    velocity, _ = drawn(rng, n, 500)
    bits = [sum(1 << (48 // n * i) for i in range(n))]
    cells = Cells(
        np.arange(500, dtype=np.int32),
        np.zeros(500, np.uint8),
        np.full(500, (1 << 48 // n * n) - 1, np.uint64),
        np.array(bits * 500, np.uint64),
        velocity.numpy().ravel(),
        500,
    )
    codec = model.codec()
    codes = codec.encode(cells)
    errors = VelocityErrors.empty(codec.codebook_size)
    decoded = codec.decode(codes, cells.sustain, cells.onset)
    errors.add(codes, cells.sustain, cells.onset, cells.segment_velocity, decoded)
    return errors.metrics()["val/velocity_mae"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def test_pairs_and_triples_are_learned_and_single_velocities_are_exact() -> None:
    model, initial = SegmentVelVQ(settings()), SegmentVelVQ(settings())
    train(model)
    train(initial, 1)  # k-means on one batch
    assert measured(model, 1) == 0
    assert measured(model, 2) < measured(initial, 2)
    assert measured(model, 3) < measured(initial, 3)
    assert measured(model, 2) < 2.0  # 128 codes for pairs that spread over 70 × 24 velocities
    assert measured(model, 3) < 4.0


def test_few_codes_are_learned_for_single_velocities_too() -> None:
    model = SegmentVelVQ(settings(codebook_size=16))
    assert "1" in model.quantizers
    train(model)
    codec = model.codec()
    assert 0 < measured(model, 1) < 2.5
    assert (np.diff(codec.table(1)[:, 0].astype(int)) >= 0).all()


def test_the_loss_is_that_of_the_numpy_codec_but_for_rounding() -> None:
    model = SegmentVelVQ(settings())
    train(model, 30)
    velocity, length = drawn(np.random.default_rng(3), 2, 300)
    decoded = model.quantizers["2"].codebook + model.offsets["2"]
    codes = _nearest(velocity.float(), length.float(), torch.round(decoded.detach()).clamp(1, 127))
    codec = model.codec()
    ours = codec.nearest(velocity.numpy().astype(np.int16), length.numpy().astype(np.int16))
    rounded = torch.round(decoded.detach()).clamp(1, 127)[codes].numpy()
    assert (
        np.abs(codec.table(2)[ours].astype(int) - velocity.numpy()).sum()
        == np.abs(rounded - velocity.numpy()).sum()
    )


def test_a_number_of_segments_without_cells_gets_usable_codes() -> None:
    model = SegmentVelVQ(settings())
    velocity, length = drawn(np.random.default_rng(0), 2, 512)
    losses = model.training_losses({"velocity_2": velocity, "length_2": length})
    losses["loss"].backward()
    codec = model.codec()
    assert np.array_equal(codec.table(3), np.repeat(codec.table(1), 3, axis=1))
    assert float(SegmentVelVQ(settings()).training_losses({})["loss"].detach()) == 0


def test_codes_are_numbered_from_soft_to_loud_for_every_number_of_segments() -> None:
    rng = np.random.default_rng(0)
    learned = {n: rng.integers(1, 128, (200, n)).astype(np.uint8) for n in (2, 3)}
    tables = number_codes(learned, 200, 4)
    assert [t.shape for t in tables] == [(200, 1), (200, 2), (200, 3), (200, 4)]
    for table in tables:
        assert (np.diff(table.sum(axis=1, dtype=int)) >= 0).all()
    assert {tuple(row) for row in tables[1].tolist()} == {tuple(row) for row in learned[2].tolist()}
    assert np.abs(tables[0][:, 0] - tables[1].mean(axis=1)).mean() < 4


@pytest.mark.parametrize("size", [127, 128, 512])
def test_the_staircase_has_every_velocity_and_follows_the_loudness(size: int) -> None:
    loudness = np.sort(np.clip(np.random.default_rng(0).normal(64, 16, size), 1, 127))
    velocity = staircase(loudness)
    assert sorted(set(velocity.tolist())) == list(range(1, 128))
    assert set(np.diff(velocity.astype(int)).tolist()) <= {0, 1}
    if size == 512:
        assert np.abs(velocity - loudness).mean() < 8
