"""Fixtures of the tests of the language model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.stage import Metrics, StageContext
from pianolm.stages import base
from tests.lm.stage_toys import context, tokenizer, write_tokens
from tests.lm.toys import toy_store


@pytest.fixture(scope="session")
def store_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store with pieces of every split, some of them flat. Tests only read it."""
    return toy_store(tmp_path_factory.mktemp("store") / "tokens")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage=tokenize publishes."""
    return write_tokens(tmp_path_factory.mktemp("tokens"), tokenizer())


@pytest.fixture(scope="module")
def trained(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageContext, Metrics]:
    ctx = context(tmp_path_factory.mktemp("base"), "base", {"tokens": tokens})
    return ctx, base.run(ctx)
