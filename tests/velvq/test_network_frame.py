"""The codec's networks: they learn, agree with their NumPy form, and use their codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pianolm.errors import UserError
from pianolm.music.cells import Cells, frame_velocity
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors
from pianolm.tokenizer.velocity.frame import (
    VELOCITY_CENTRE,
    VELOCITY_SCALE,
    resample,
    resample_onsets,
    segment_velocities,
)
from pianolm.velvq.datamodule import CellCache, FrameBatches
from pianolm.velvq.module import VelVQModule
from pianolm.velvq.network_frame import FrameSettings, FrameVelVQ, normalise

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # batches lie in memory
]


def settings(**changes: Any) -> FrameSettings:
    defaults: dict[str, Any] = {
        "frames": 48,
        "codebook_size": 64,
        "hidden": 64,
        "latent": 8,
        "depth": 1,
        "activation": "relu",
        "learning_rate": 5e-3,
        "warmup_steps": 10,
        "weight_decay": 0.0,
        "commitment": 0.25,
        "decay": 0.95,
        "dead_code_threshold": 0.5,
        "max_steps": 300,
    }
    return FrameSettings(**{**defaults, **changes})


def two_note_cells(n_cells: int, seed: int = 0) -> Cells:
    """Cells of two notes, half a beat each, of few different velocity pairs: the mean tells little."""
    rng = np.random.default_rng(seed)
    sustain = np.full(n_cells, (1 << 48) - 1, np.uint64)
    onset = np.full(n_cells, 1 | 1 << 24, np.uint64)
    pairs = rng.integers(20, 110, (24, 2)).astype(np.uint8)
    velocity = pairs[rng.integers(0, 24, n_cells)].ravel()
    return Cells(
        np.arange(n_cells, dtype=np.int32), np.full(n_cells, 60, np.uint8), sustain, onset, velocity, n_cells
    )


def mean_baseline(cells: Cells) -> float:
    """Mean absolute error over frames if each cell is replaced by its own mean."""
    velocity = frame_velocity(cells).astype(np.float64)
    active = velocity > 0
    mean = velocity.sum(axis=1) / active.sum(axis=1)
    return float(np.abs(velocity - mean[:, None])[active].mean())


def full_batch(cells: Cells, frames: int) -> dict[str, torch.Tensor]:
    return {
        "velocity": torch.from_numpy(resample(frame_velocity(cells), frames)),
        "sustain": torch.from_numpy(cells.sustain.astype(np.int64)),
        "onset": torch.from_numpy(cells.onset.astype(np.int64)),
        "segment_velocity": torch.from_numpy(cells.segment_velocity),
    }


def train(module: VelVQModule, cells: Cells, root: Path) -> dict[str, float]:
    """Trains on all cells at each step and validates on them at the end."""
    batch = full_batch(cells, module.settings.frames)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=module.settings.max_steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=module.settings.max_steps,
        log_every_n_steps=50,
        default_root_dir=root,
    )
    batches: Any = [batch] * module.settings.max_steps
    trainer.fit(module, DataLoader(batches, batch_size=None), DataLoader(batches[:1], batch_size=None))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[VelVQModule, Cells, dict[str, float]]:
    torch.manual_seed(0)
    module, cells = VelVQModule(settings()), two_note_cells(512)
    return module, cells, train(module, cells, tmp_path_factory.mktemp("root"))


def test_it_learns_more_than_the_mean_of_each_cell(
    trained: tuple[VelVQModule, Cells, dict[str, float]],
) -> None:
    module, cells, metrics = trained
    assert metrics["val/velocity_mae"] < 0.25 * mean_baseline(cells)
    assert metrics["val/velocity_mae"] == metrics["val/velocity_mae_2"]
    assert module.train_seconds > 0


def test_metrics_are_those_of_the_exported_codec(
    trained: tuple[VelVQModule, Cells, dict[str, float]], tmp_path: Path
) -> None:
    module, cells, metrics = trained
    module.export_weights(tmp_path)
    codec = VelocityCodec.from_directory(tmp_path)
    codes = codec.encode(cells)
    errors = VelocityErrors.empty(codec.codebook_size)
    errors.add(
        codes,
        cells.sustain,
        cells.onset,
        cells.segment_velocity,
        codec.decode(codes, cells.sustain, cells.onset),
    )
    for name, value in errors.metrics().items():
        assert metrics[name] == pytest.approx(value, abs=0.02), name


@pytest.mark.parametrize("frames", [48, 24, 12])
@pytest.mark.parametrize("activation", ["silu", "relu"])
@pytest.mark.parametrize("see_onset", [False, True])
def test_numpy_and_torch_agree(frames: int, activation: str, see_onset: bool) -> None:
    model = FrameVelVQ(settings(frames=frames, activation=activation, depth=2, see_onset=see_onset))
    rng = np.random.default_rng(0)
    cells = two_note_cells(400)
    cells.onset[:] = np.uint64(1) | np.uint64(1) << rng.integers(1, 48, 400).astype(np.uint64)
    cells.segment_velocity[:] = rng.integers(1, 128, cells.segment_velocity.size)
    seen = [torch.from_numpy(resample(frame_velocity(cells), frames))]
    if see_onset:
        seen.append(torch.from_numpy(resample_onsets(cells.sustain, cells.onset, frames)))
    model(*seen)  # k-means gives the codes their places
    model.eval()
    with torch.no_grad():
        output = model(*seen)
    codec = model.codec()
    assert codec.see_onset == see_onset
    assert ("see_onset" in codec.config) == see_onset
    codes = codec.encode(cells)
    assert np.array_equal(codes, output.codes.numpy())
    assert np.unique(codes).size > 20
    frames_Cn = output.frames.numpy() * VELOCITY_SCALE + VELOCITY_CENTRE
    expected = segment_velocities(frames_Cn, cells.sustain, cells.onset)
    assert np.array_equal(codec.decode(codes, cells.sustain, cells.onset), expected)


def test_silent_frames_have_no_part_in_the_loss() -> None:
    model = FrameVelVQ(settings())
    velocity = torch.zeros(64, 48, dtype=torch.uint8)
    velocity[:, 10:20] = torch.randint(1, 128, (64, 1))
    seen: list[torch.Tensor] = []
    model.register_forward_hook(
        lambda _m, _i, output: (output.frames.retain_grad(), seen.append(output.frames))[0]
    )
    counts: list[int] = []

    def share(count: torch.Tensor | int) -> torch.Tensor:
        counts.append(int(count))
        return 1 / torch.tensor(float(count))

    losses = model.training_losses({"velocity": velocity}, share)
    losses["loss"].backward()
    gradient = seen[0].grad
    assert gradient is not None
    assert counts == [64 * 10, 64]
    assert not gradient[velocity == 0].any()
    assert gradient[velocity > 0].all()
    expected = (seen[0] - normalise(velocity))[velocity > 0].square().mean()
    assert torch.allclose(losses["reconstruction"], expected)


def test_the_decoder_reads_the_mask_at_its_start_and_before_its_output() -> None:
    model: Any = FrameVelVQ(settings())
    latent, mask = torch.randn(8, 8), torch.zeros(8, 48)
    plain = model.decode(latent, mask)
    for layer in (model.decoder[0], model.output[0]):
        kept = layer.weight.detach().clone()
        layer.weight.data[:, -48:] = 0  # deaf to the mask here, it still hears it at the other place
        assert not torch.allclose(model.decode(latent, mask + 1), model.decode(latent, mask))
        layer.weight.data = kept
    for layer in (model.decoder[0], model.output[0]):
        layer.weight.data[:, -48:] = 0
    assert torch.equal(model.decode(latent, mask + 1), model.decode(latent, mask))
    assert plain.shape == (8, 48)


def test_batches_hold_onsets_where_they_are_seen() -> None:
    cells = two_note_cells(50)
    cells.onset[:] = np.uint64(1) | np.uint64(1) << np.arange(1, 48, dtype=np.uint64).repeat(2)[:50]
    cache = CellCache(cells.sustain, cells.onset, cells.segment_offset, cells.segment_velocity)
    drawn = (24, 16, 0, 0, 1)
    plain, seeing = FrameBatches(cache, *drawn)[3], FrameBatches(cache, *drawn, see_onset=True)[3]
    assert set(plain) == {"velocity"}
    assert torch.equal(plain["velocity"], seeing["velocity"])
    known = {
        (*velocity, *struck)
        for velocity, struck in zip(
            resample(frame_velocity(cells), 24).tolist(),
            resample_onsets(cells.sustain, cells.onset, 24).tolist(),
            strict=True,
        )
    }
    rows = zip(seeing["velocity"].tolist(), seeing["struck"].tolist(), strict=True)
    assert {(*velocity, *struck) for velocity, struck in rows} <= known


def test_only_onsets_tell_apart_what_sounds_alike() -> None:
    """With a single code, beats held through and beats struck again have one meaning unless onsets are seen."""
    velocity = torch.full((64, 48), 50, dtype=torch.uint8)
    velocity[32:] = 90
    onset = torch.zeros(64, 48, dtype=torch.bool)
    onset[:, 0] = onset[32:, 24] = True
    error = {}
    for see_onset, batch in ((False, {}), (True, {"struck": onset})):
        torch.manual_seed(0)
        model = FrameVelVQ(settings(codebook_size=1, see_onset=see_onset))
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(60):
            losses = model.training_losses({"velocity": velocity, **batch}, lambda count: 1 / float(count))
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
        error[see_onset] = float(losses["reconstruction"].detach())
    assert error[True] < 0.1 * error[False]


def test_dead_codes_come_back_to_life() -> None:
    model = FrameVelVQ(settings(dead_code_threshold=0.5))
    velocity = torch.from_numpy(frame_velocity(two_note_cells(512)))
    model(velocity)
    codebook: Any = model.quantizer.layers[0]._codebook
    codebook.embed[0, :32] = 1e3  # far from every cell
    codebook.embed_avg[0, :32] = 1e3
    codebook.cluster_size[0, :32] = 1.0
    for _ in range(40):
        model(velocity)
    assert codebook.embed[0].abs().max() < 100
    assert np.isfinite(codebook.embed.numpy()).all()


def test_velocities_are_centred_and_silence_is_zero() -> None:
    assert normalise(torch.tensor([0, 64, 88], dtype=torch.uint8)).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 20}, "velvq.frames=20"),
        ({"activation": "gelu"}, "velvq.activation='gelu'"),
        ({"codebook_size": 0}, "velvq.codebook_size=0"),
        ({"decay": 1.0}, "velvq.decay=1.0"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(**change)
