"""Packing a trained model for the box."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pianolm import PianoLM
from pianolm.artifacts import problem_of, read_record, write_record
from pianolm.export.model_files import stored_dtype
from tests.markdown import ROOT


@pytest.fixture(scope="module")
def packing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pack", ROOT / "experiments" / "box-model" / "pack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_packed_model_is_whole_in_16_bits_with_credits_and_its_card(
    chain: Path, packing: ModuleType, tmp_path: Path
) -> None:
    artifacts = chain / "artifacts"
    (model,) = (artifacts / "finetune").glob("[!.]*")
    out = tmp_path / "tiny"
    out.mkdir()
    (out / "README.md").write_text("# tiny\n")
    packing.pack(model, artifacts, out)
    assert problem_of(out, hashes=True) is None
    names = {path.name for path in out.iterdir()}
    assert {"CREDITS.csv", "WORKS.csv", "code_freq.npz", "generation_config.json", "README.md"} <= names
    assert (out / "README.md").read_text() == "# tiny\n"
    assert stored_dtype(out / "model.safetensors") == "float16"
    lm = PianoLM.from_pretrained(out)
    assert lm.generation_defaults.repeat == packing.preset()["repeat"]
    assert len(lm.generate_pieces(beats=2)) == 1
    assert (read_record(out) or {})["fingerprint"] == model.name


def test_music_that_is_not_free_is_refused(chain: Path, packing: ModuleType, tmp_path: Path) -> None:
    write_record(tmp_path, {"fingerprint": "a", "licences": ["CC-BY-SA-4.0"]})
    with pytest.raises(SystemExit, match=r"under CC-BY-SA-4.0, which a bundled model may not"):
        packing.pack(tmp_path, chain / "artifacts", tmp_path / "out")
