"""The LightningModule of velocity codecs: it learns, and its metrics are those of the exported codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pianolm.music.cells import Cells, frame_velocity
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import VelocityErrors
from pianolm.velvq.module import VelVQModule, settings_of
from pianolm.velvq.network_frame import FrameSettings
from tests.velvq.test_network_frame import settings
from tests.velvq.toys import two_note_cells

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # batches lie in memory
]


def mean_baseline(cells: Cells) -> float:
    """Mean absolute error over frames if each cell is replaced by its own mean."""
    velocity = frame_velocity(cells).astype(np.float64)
    active = velocity > 0
    mean = velocity.sum(axis=1) / active.sum(axis=1)
    return float(np.abs(velocity - mean[:, None])[active].mean())


def full_batch(cells: Cells) -> dict[str, torch.Tensor]:
    return {
        "velocity": torch.from_numpy(frame_velocity(cells)),
        "sustain": torch.from_numpy(cells.sustain.astype(np.int64)),
        "onset": torch.from_numpy(cells.onset.astype(np.int64)),
        "segment_velocity": torch.from_numpy(cells.segment_velocity),
    }


def train(module: VelVQModule, cells: Cells, root: Path) -> dict[str, float]:
    """Trains on all cells at each step and validates on them at the end."""
    batch = full_batch(cells)
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
    assert module.stopwatch.seconds > 0


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


def test_forward_and_test_metrics_are_those_of_validation(
    trained: tuple[VelVQModule, Cells, dict[str, float]],
) -> None:
    module, cells, metrics = trained
    batch = full_batch(cells)
    codes, decoded = module(batch["sustain"], batch["onset"], batch["segment_velocity"])
    assert codes.shape == (len(cells),)
    error = np.abs(decoded.numpy().astype(int) - cells.segment_velocity).mean()  # segments of equal length
    assert error == pytest.approx(metrics["val/velocity_mae"], abs=0.02)
    (tested,) = module.trainer.test(module, DataLoader([batch], batch_size=None), verbose=False)
    assert tested["test/velocity_mae"] == pytest.approx(metrics["val/velocity_mae"], abs=0.02)


def test_hyperparameters_are_the_settings() -> None:
    module = VelVQModule(settings())
    assert module.hparams["codebook_size"] == 64
    assert FrameSettings(**module.hparams) == module.settings
    assert settings_of({**module.hparams, "form": "frame"}) == module.settings
