"""Fixtures of the tests of stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.toys import model_directory

CONTEXT = 256


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that pictures take."""
    monkeypatch.setattr("pianolm.generation.output.save_piano_roll", lambda *_: None)
    monkeypatch.setattr("pianolm.report.html.webp", lambda _: b"")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories `velocity` and `base` with untrained models."""
    root = tmp_path_factory.mktemp("models")
    model_directory(root / "velocity", velocity=True, context=CONTEXT)
    model_directory(root / "base", velocity=False, context=CONTEXT)
    return root
