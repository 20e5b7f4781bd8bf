"""The directory of an exported model: what is in it, and what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pianolm import PianoLM, Piece
from pianolm.artifacts import problem_of, read_record, write_record
from pianolm.export.directory import Export, model_name, write_export
from pianolm.report.html import describe

FILES = {
    "README.md",
    "artifact.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "sample.mid",
    "sample.mp3",
    "sample.png",
    "tokenization_pianolm.py",
    "tokenizer_config.json",
    "tokenizer/codebook.npz",
    "tokenizer/tokenizer.json",
    "tokenizer/velocity/codec.safetensors",
    "tokenizer/velocity/config.json",
}


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "copy"))


def export(source: Path, target: Path) -> Path:
    write_export(PianoLM.from_pretrained(source), Export(source, (), "research", "toy", "toy"), target)
    return target


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_a_model_has_all_its_files_and_the_same_weights(exported: Path, toy: Path) -> None:
    assert names(exported) == FILES
    before, after = load_file(toy / "model.safetensors"), load_file(exported / "model.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert {(path.stat().st_mode & 0o777) for path in exported.rglob("*") if path.is_file()} == {0o644}
    sample = Piece.from_midi(exported / "sample.mid")
    assert sample.notes.size, describe(sample)


def test_the_record_has_the_files_that_make_the_model_and_no_others(exported: Path) -> None:
    assert problem_of(exported, hashes=True) is None
    record = read_record(exported)
    assert record is not None
    listed = {"config.json", "generation_config.json", "model.safetensors"}
    assert set(record["files"]) == listed | {name for name in FILES if name.startswith("tokenizer/")}
    assert record["licences"] == ["unknown"]


def test_an_export_exported_again_is_the_same_model_with_its_card(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    card = (copy / "README.md").read_text() + "\nA sentence by hand.\n"
    (copy / "README.md").write_text(card)
    again = export(copy, tmp_path / "again")
    assert (again / "README.md").read_text() == card
    for name in FILES - {"README.md", "artifact.json"}:
        assert (again / name).read_bytes() == (exported / name).read_bytes(), name
    assert (read_record(again) or {})["fingerprint"] == (read_record(exported) or {})["fingerprint"]


def test_code_and_settings_that_only_lie_there_stay_behind_and_are_not_run(
    copy: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    for name in ("tokenization_pianolm.py", "modeling_llama.py", "tokenizer/tokenization.py", "__init__.py"):
        (copy / name).write_text(f"open({str(trace)!r}, 'w').write('ran')\n")
    config = json.loads((copy / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "modeling_llama.Model"}, "quantization_config": {"a": 1}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}')
    target = export(copy, tmp_path / "out")
    assert names(target) == FILES
    assert not trace.exists()
    assert not {"auto_map", "quantization_config"} & set(json.loads((target / "config.json").read_text()))
    assert "ran" not in (target / "tokenization_pianolm.py").read_text().split()
    assert "evil" not in (target / "tokenizer_config.json").read_text()


def test_a_model_is_called_by_its_stage_and_fingerprint_or_its_directory(copy: Path) -> None:
    assert model_name(copy) == "copy"
    write_record(copy, {"stage": "finetune", "fingerprint": "0123456789abcdef"})
    assert model_name(copy) == "finetune-01234567"


@pytest.mark.parametrize(
    ("stage", "fingerprint", "name"),
    [
        ("../../x", "0123456789", "x-01234567"),
        ("/etc/x", "..", "etc-x"),
        ("..", "../a", "a"),
        ("", "/", "model"),
        (None, 7, "None-7"),
        ("a\nb\\c", "\0", "a-b-c"),
    ],
)
def test_a_name_of_a_fetched_record_is_never_a_path(
    stage: object, fingerprint: object, name: str, copy: Path
) -> None:
    write_record(copy, {"stage": stage, "fingerprint": fingerprint})
    assert model_name(copy) == name
