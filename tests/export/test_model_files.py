"""The files that make a model, written anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pianolm import PianoLM
from pianolm.errors import UserError
from pianolm.export.model_files import stored_dtype, write_model


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "copy"))


def written(source: Path, out: Path, dtype: str | None = None) -> Path:
    out.mkdir()
    write_model(PianoLM.from_pretrained(source), source, out, dtype)
    return out


def test_weights_may_be_stored_in_16_bits_and_keep_them(toy: Path, tmp_path: Path) -> None:
    half = written(toy, tmp_path / "half", "float16")
    assert stored_dtype(half / "model.safetensors") == "float16"
    assert json.loads((half / "config.json").read_text())["dtype"] == "float32", (
        "what transformers computes in"
    )
    again = written(half, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (half / "model.safetensors").read_bytes()


def test_weights_that_16_bits_cannot_hold_are_refused(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    save_file({name: tensor * 1e6 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(
        UserError, match=r"model.safetensors: model.* has values too large for float16; store it in"
    ):
        written(copy, tmp_path / "out", "float16")


def test_sampling_settings_travel_along(copy: Path, tmp_path: Path) -> None:
    path = copy / "generation_config.json"
    settings = {"temperature": 0.9, "do_sample": True, "pianolm": {"repeat": 2.0}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    found = json.loads((written(copy, tmp_path / "out") / "generation_config.json").read_text())
    assert {key: found[key] for key in settings} == settings
    assert found["eos_token_id"] == 4787
    path.write_text("[]")
    with pytest.raises(UserError, match=r"generation_config.json: list found, expected a JSON object"):
        written(copy, tmp_path / "none")
