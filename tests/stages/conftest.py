"""Fixtures of the tests of stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pianolm.report.piano_roll import RollImage
from tests.evaluation.toys import model_directory

CONTEXT = 256


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that pictures take."""
    blank = RollImage(Image.new("RGB", (2, 2)), 0, (0.05, 0.1, 0.95, 0.9), 14.0)
    monkeypatch.setattr("pianolm.generation.output.save_piano_roll", lambda *_: blank)
    monkeypatch.setattr("pianolm.report.html.piano_roll_image", lambda *_, **__: blank)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories `velocity` and `base` with untrained models."""
    root = tmp_path_factory.mktemp("models")
    model_directory(root / "velocity", velocity=True, context=CONTEXT)
    model_directory(root / "base", velocity=False, context=CONTEXT)
    return root
