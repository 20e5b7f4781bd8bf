"""The music of a model is found through the records of its artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pianolm.artifacts import RECORD, read_record
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.training_set import training_cells, training_notes
from pianolm.models import WORKS
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
    found = training_notes(model, tmp_path, store)
    assert found is not None, "artifacts are looked for beside the model, too"
    notes = found.runs
    assert found.origin == f"{notes.n_pieces} pieces: the training pieces of the model's own cells"
    assert notes.n_pieces == len(store.split("train")) < len(store)
    assert notes.pitch.size == sum(store.pieces[index].notes for index in store.split("train"))


@pytest.mark.parametrize("lost", ["prepare", "tokenize", "base"])
def test_music_that_is_partly_missing_is_not_known(chain: Path, tmp_path: Path, lost: str) -> None:
    shutil.copytree(chain / "artifacts", tmp_path / "artifacts", ignore=shutil.ignore_patterns("*.ckpt"))
    model, cells = model_and_cells(chain, tmp_path / "artifacts")
    measured = CellStore.open(cells)
    assert training_notes(model, tmp_path, measured) is not None
    for path in (tmp_path / "artifacts" / lost).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    assert training_notes(model, tmp_path, measured) is None


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


def test_a_model_that_left_its_cells_behind_names_the_works_among_those_measured(
    chain: Path, tmp_path: Path
) -> None:
    """Those of its validation do not count, nor do works of the same name in another data set."""
    _, cells = model_and_cells(chain, chain / "artifacts")
    measured = CellStore.open(cells)
    model = model_directory(tmp_path / "a" / "model", velocity=False)
    assert training_notes(model, tmp_path, measured) is None, "nothing says what it learned from"
    train, validation = measured.split("train"), measured.split("validation")
    named = [measured.pieces[index].composition for index in (*train[:2], *validation)]
    rows = [*(f"demo,{work},1" for work in named), f"other,{measured.pieces[train[2]].composition},1"]
    (model / WORKS).write_text("\n".join(["source,work,pieces", *rows]) + "\n")
    found = training_notes(model, tmp_path, measured)
    assert found is not None
    assert found.origin == "2 pieces: the training pieces measured that WORKS.csv of model names"
    assert found.runs.pitch.size == sum(measured.pieces[index].notes for index in train[:2])
    (model / WORKS).write_text("source,work,pieces\n" + rows[-1] + "\n")
    assert training_notes(model, tmp_path, measured) is None, "none of its works is measured"
