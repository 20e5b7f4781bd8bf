"""Directories that take long to build: once for all processes of a test run, and without pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A copy of a directory that the first process in need of it builds; the others wait for it.

    Each has a copy of its own, so tests may add to it.

    Args:
        factory: The fixture `tmp_path_factory`.
        name: Of the directory.
        build: Fills an empty directory.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder in it
    made, complete = root / f"once-{name}", root / f"once-{name}.complete"
    with FileLock(root / f"once-{name}.lock"):
        if not complete.exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            build(made)
            complete.touch()
    return Path(shutil.copytree(made, factory.mktemp(name), dirs_exist_ok=True))


@contextmanager
def without_curves_drawn() -> Iterator[None]:
    """Saves the time that pictures of training take, more than that of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pianolm.training.trainer._curves", lambda ctx: {})
        yield


@contextmanager
def without_pictures_drawn() -> Iterator[None]:
    """The same of all pictures of codebook, codec and trainings."""
    with without_curves_drawn(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pianolm.velvq.train.publish_survey", lambda *given: {})
        patch.setattr("pianolm.report.codebook_atlas.save_codebook_atlas", lambda *given: None)
        patch.setattr("pianolm.stages.codebook._save_example_bar", lambda *given: None)
        yield
