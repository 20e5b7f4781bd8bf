"""Stage `export`: from a trained model to a directory and to the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pianolm import PianoLM
from pianolm.artifacts import read_record, write_record
from pianolm.errors import UserError
from pianolm.run import execute
from tests.hub_server import Hub
from tests.tiny import composed


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pianolm.export.directory.SAMPLE_BEATS", 8)


@pytest.fixture(scope="module")
def trained(chain: Path) -> Path:
    """The fine-tuned model of the tiny chain."""
    return next((chain / "artifacts" / "finetune").glob("[!.]*"))


def run(run_dir: Path, *overrides: str) -> dict[str, Any]:
    places = (f"paths.artifacts={run_dir}/artifacts", f"paths.work={run_dir}/work")
    return execute(composed("stage=export", "hardware=cpu", "logger=csv", *places, *overrides), run_dir)


def test_a_trained_model_is_exported_uploaded_and_played_from_the_hub(
    trained: Path, server: Hub, tmp_path: Path
) -> None:
    metrics = run(tmp_path, f"upstream.model={trained}", "export.push=anna/first", "seed=3")
    directory = Path(metrics["directory"])
    assert directory == tmp_path / "first"
    assert metrics["artifact"] == str(tmp_path)
    assert metrics["licence"] == "mit", "demo music is composed by this program"
    assert metrics["url"] == f"{server.address}/anna/first"
    card = (directory / "README.md").read_text("utf-8")
    for part in (
        "license: mit",
        "# first",
        '"anna/first"',
        "| demo |",
        "CREDITS.csv",
        "WORKS.csv",
        "(seed 3)",
    ):
        assert part in card, part
    trained_on = (read_record(trained) or {})["metrics"]
    assert f"{trained_on['val/bits_per_note']:,.4g}" in card
    repository = server.models["anna/first"]
    assert repository.private
    assert repository.files["README.md"].decode() == card
    plays = [PianoLM.from_pretrained(one).generate_pieces(beats=2)[0].ids for one in (trained, "anna/first")]
    assert plays[0].tolist() == plays[1].tolist()


def test_a_use_that_the_licences_forbid_is_refused_before_anything_is_written(
    trained: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "model"))
    record = read_record(copy) or {}
    write_record(copy, {**record, "licences": ["CC-BY-NC-SA-4.0", "MIT"]})
    with pytest.raises(UserError, match=r"export.use=commercial: .* under CC-BY-NC-SA-4.0"):
        run(tmp_path / "run", f"upstream.model={copy}", "export.use=commercial")
    assert not list((tmp_path / "run").glob("*/config.json"))


def test_what_cannot_be_exported_is_one_sentence(
    trained: Path, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"a file found, expected the directory of a model"):
        run(tmp_path, f"upstream.model={trained}/model.safetensors")
    with pytest.raises(UserError, match=r"export.push=a b found, expected user/name"):
        run(tmp_path, f"upstream.model={trained}", "export.push='a b'")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"export.push=anna/first: no token"):
        run(tmp_path, "export.push=anna/first")


def test_a_second_run_into_the_same_directory_replaces_the_export(trained: Path, tmp_path: Path) -> None:
    first = Path(run(tmp_path, f"upstream.model={trained}")["directory"])
    (first / "left.txt").write_text("from before")
    again = run(tmp_path, f"upstream.model={trained}")
    assert Path(again["directory"]) == first
    assert first.name == f"finetune-{trained.name[:8]}"
    assert not (first / "left.txt").exists()
    record = json.loads((first / "artifact.json").read_text())
    assert record["fingerprint"] == trained.name
    assert not list(tmp_path.glob(".*.partial"))
