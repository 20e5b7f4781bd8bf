"""Fixtures of the tests of the language model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lm.toys import toy_store


@pytest.fixture(scope="session")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store with pieces of every split, some of them flat. Tests only read it."""
    return toy_store(tmp_path_factory.mktemp("store") / "tokens")
