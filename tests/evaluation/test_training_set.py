"""The music of a model is found through the records of its artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pianolm.artifacts import RECORD, read_record
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.training_set import training_cells, training_notes
from tests.evaluation.toys import model_directory


def model_and_cells(chain: Path, root: Path) -> tuple[Path, Path]:
    """The model that the chain played, and the cells that it was made from, below a folder of artifacts."""
    model = root / "finetune" / json.loads((chain / "run/metrics.json").read_text())["upstream"]["model"]
    tokens = read_record(model)["upstream"]["tokens"]
    return model, root / "prepare" / read_record(root / "tokenize" / tokens)["upstream"]["cells"]


def test_a_model_leads_to_the_training_split_of_its_cells(chain: Path, tmp_path: Path) -> None:
    model, cells = model_and_cells(chain, chain / "artifacts")
    assert training_cells(model, [tmp_path, chain / "artifacts"]) == [cells]
    store = CellStore.open(cells)
    notes = training_notes(model, tmp_path)
    assert notes is not None, "artifacts are looked for beside the model, too"
    assert notes.n_pieces == len(store.split("train")) < len(store)
    assert notes.pitch.size == sum(store.pieces[index].notes for index in store.split("train"))


@pytest.mark.parametrize("lost", ["prepare", "tokenize", "base"])
def test_music_that_is_partly_missing_is_not_known(chain: Path, tmp_path: Path, lost: str) -> None:
    shutil.copytree(chain / "artifacts", tmp_path / "artifacts", ignore=shutil.ignore_patterns("*.ckpt"))
    model, _ = model_and_cells(chain, tmp_path / "artifacts")
    assert training_notes(model, tmp_path) is not None
    for path in (tmp_path / "artifacts" / lost).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    assert training_notes(model, tmp_path) is None


def test_base_and_finetune_may_learn_from_different_cells(chain: Path, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    shutil.copytree(chain / "artifacts", root, ignore=shutil.ignore_patterns("*.ckpt"))
    model, cells = model_and_cells(chain, root)
    other = shutil.copytree(cells, root / "prepare" / "another")
    record = read_record(model)
    assert record is not None
    base = root / "base" / record["upstream"]["base"]
    content = json.loads((base / RECORD).read_text())
    (base / RECORD).write_text(json.dumps({**content, "upstream": {"cells": other.name}}))
    assert training_cells(model, [root]) == [other, cells]


def test_a_model_without_a_record_has_no_known_music(tmp_path: Path) -> None:
    assert training_notes(model_directory(tmp_path / "a" / "model", velocity=False), tmp_path) is None
