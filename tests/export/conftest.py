"""An untrained model, exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm import PianoLM
from pianolm.export import directory
from pianolm.export.directory import Export, write_export
from tests.evaluation.toys import model_directory

BEATS = 8
"""Of samples; those of 32 beats take seconds to play and to draw."""


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "SAMPLE_BEATS", BEATS)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with velocities."""
    return model_directory(tmp_path_factory.mktemp("models") / "toy", velocity=True, context=512)


@pytest.fixture(scope="session")
def exported(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that it is exported to."""
    target = tmp_path_factory.mktemp("export") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "SAMPLE_BEATS", BEATS)
        write_export(PianoLM.from_pretrained(toy), Export(toy, (), "research", "toy", "anna/toy"), target)
    return target
