"""Fixtures of the tests of the velocity codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.data.cell_store import CellStore
from pianolm.velvq.cell_cache import CellCache, build_cache
from tests.velvq.toys import DYNAMIC, FLAT, MidiFile, make_store


@pytest.fixture
def store(tmp_path: Path, midi_file: MidiFile) -> CellStore:
    pieces = [
        ("train", DYNAMIC),
        ("train", FLAT),
        ("train", DYNAMIC),
        ("validation", DYNAMIC),
        ("validation", FLAT),
    ]
    return make_store(tmp_path / "store", midi_file, pieces)


@pytest.fixture
def cells(store: CellStore, tmp_path: Path) -> CellCache:
    return CellCache.open(build_cache(store, tmp_path / "cache"), "train")
