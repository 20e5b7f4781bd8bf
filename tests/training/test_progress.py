"""What one sees of a training while it runs: a bar on a terminal, lines elsewhere, figures in the loggers."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from torch.utils.data import DataLoader

from pianolm.report.training_log import read_curves
from pianolm.stage import StageContext
from pianolm.training.loggers import RunContext
from pianolm.training.progress import ProgressBar, ProgressLines, progress
from pianolm.training.throughput import MonitoredModule


class Descent(MonitoredModule):
    """Walks down a bowl; the gradient of step k is known."""

    def __init__(self) -> None:
        super().__init__("cells")
        self.weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = 0.5 * self.weight.square().sum()
        self.log_throughput(10)
        if self.is_logging_step:
            self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.weight.square().sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def fit(root: Path, *callbacks: L.Callback, **options: Any) -> None:
    data: Any = DataLoader(torch.zeros(8, 1), batch_size=1)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=6,
        max_epochs=-1,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        log_every_n_steps=2,
        logger=CSVLogger(root, "descent", "csv"),
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Descent(), data, data)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_figures_are_logged_in_the_steps_of_rows_alone(tmp_path: Path, clip: float | None) -> None:
    fit(tmp_path, gradient_clip_val=clip)
    columns = read_curves([tmp_path / "descent/csv/metrics.csv"]).columns
    for name in ("gradient_norm", "learning_rate", "memory_mb", "train/loss", "train/cells_per_second"):
        assert columns[name][0].tolist() == [2, 4, 6], name
    assert columns["learning_rate"][1].tolist() == [0.5] * 3
    assert columns["memory_mb"][1].min() > 50
    # Unclipped steps halve the weight (5 to begin with); clipped ones take 0.5 off its length.
    norms = [2.5, 0.625, 0.15625] if clip is None else [4.5, 3.5, 2.5]
    assert columns["gradient_norm"][1].tolist() == pytest.approx(norms), "from before clipping"


def test_a_terminal_gets_a_bar_with_validations_above_it(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    fit(tmp_path, ProgressBar("base", "val/loss", console))
    shown = screen.getvalue()
    for words in ("base", "6/6", "loss 0.0", "cells/s", "0:00:00 left", "step 4/6  val/loss 0.09"):
        assert words in shown


def test_a_bar_ends_where_training_fails(tmp_path: Path) -> None:
    class Fail(L.Callback):
        def on_train_batch_start(self, *given: Any) -> None:
            if given[0].global_step == 3:
                raise RuntimeError("stop")

    screen = io.StringIO()
    bar = ProgressBar("base", "val/loss", Console(file=screen, force_terminal=True, width=120))
    with pytest.raises(RuntimeError, match="stop"):
        fit(tmp_path, bar, Fail())
    assert bar._bar is None
    assert "3/6" in screen.getvalue()


def test_a_pipe_gets_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fit(tmp_path, ProgressLines(4, "val/loss"))
    lines = [line.strip() for line in caplog.messages if line.startswith("  step")]
    assert [line.split("  ")[0] for line in lines] == ["step 4/6", "step 4/6"]
    assert "train/loss 0.1953" in lines[0]
    for unit in ("steps/s", "cells/s", "left"):
        assert unit in lines[0]
    assert lines[1] == f"step 4/6  val/loss {(5 / 2**4) ** 2:.4f}"


def test_a_bar_is_for_a_terminal_that_no_sweep_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for terminal, plain, expected in [
        (True, False, ProgressBar),
        (True, True, ProgressLines),
        (False, False, ProgressLines),
    ]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        here = Path()
        stage = StageContext({}, {}, here, here, here, "base", sweep="a sweep" if plain else None)
        assert type(progress(RunContext(stage, False, "val/loss"))) is expected
