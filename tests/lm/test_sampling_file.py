"""`generation_config.json`: what pianolm reads of it, what transformers does, and one sentence for each wrong value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pianolm import PianoLM
from pianolm.errors import UserError
from pianolm.generation.config import SamplingSettings
from pianolm.lm.sampling_file import FILE, read_sampling, sampling_beside, write_sampling
from tests.evaluation.toys import model_directory

SETTINGS: dict[str, Any] = {
    "temperature": 0.9,
    "top_p": 0.8,
    "top_k": 7,
    "min_p": 0.01,
    "repeat": 1.5,
    "by_kind": {"pitch": {"temperature": 0.7}, "bar": {"top_k": 1}},
}


def written(directory: Path, content: Any) -> Path:
    (directory / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, {}),
        ({"temperature": None, "top_k": None, "pianolm": None}, {}),
        (
            {"temperature": 1, "top_p": 0.9, "num_beams": 4, "max_length": 20},
            {"temperature": 1, "top_p": 0.9},
        ),
        ({"do_sample": True, "top_k": 50}, {"top_k": 50}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"pianolm": {"repeat": 2, "by_kind": {}}}, {"repeat": 2}),
        (
            {"pianolm": {"by_kind": {"pitch": {"top_p": 0.9, "top_k": None}}}},
            {"by_kind": {"pitch": {"top_p": 0.9}}},
        ),
    ],
)
def test_settings_have_the_names_of_options(
    content: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    assert read_sampling(written(tmp_path, content)) == expected


def test_a_model_without_the_file_brings_nothing(tmp_path: Path) -> None:
    assert read_sampling(tmp_path) == read_sampling(tmp_path / "none") == {}


WRONG: list[tuple[Any, str]] = [
    ({"temperature": -1}, r"temperature=-1 found, expected a number of at least 0"),
    ({"temperature": "0.9"}, r"temperature='0\.9' found, expected a number"),
    ({"temperature": "${seed}"}, r"temperature='\$\{seed\}' found"),
    ({"temperature": True}, r"temperature=True found"),
    ({"temperature": [0.9]}, r"temperature=\[0\.9\] found"),
    ('{"temperature": NaN}', r"temperature=nan found"),
    ('{"temperature": 1e999}', r"temperature=inf found"),
    ('{"temperature": 1' + "0" * 400 + "}", r"temperature=1000"),
    ({"top_p": 0}, r"top_p=0 found, expected a number above 0 and at most 1"),
    ({"top_k": 2.5}, r"top_k=2\.5 found, expected a whole number"),
    ({"min_p": 2}, r"min_p=2 found"),
    ({"do_sample": "yes"}, r"do_sample='yes' found, expected true or false"),
    ({"pianolm": [1]}, r"pianolm=\[1\] found, expected a JSON object"),
    ({"pianolm": {"temperature": 1}}, r"pianolm: unknown key 'temperature', expected repeat, by_kind"),
    ({"pianolm": {"repeat": -1}}, r"pianolm\.repeat=-1 found, expected a number of at least 0"),
    ({"pianolm": {"repeat": 1e300}}, r"pianolm\.repeat=1e\+300 found, .* at most 100"),
    ({"pianolm": {"by_kind": {"a\nb": {}}}}, r"pianolm\.by_kind: unknown key 'a\\nb', expected tempo, "),
    ({"pianolm": {"by_kind": {"bar": 1}}}, r"pianolm\.by_kind\.bar=1 found, expected a JSON object"),
    ({"pianolm": {"by_kind": {"bar": {"p": 1}}}}, r"pianolm\.by_kind\.bar: unknown key 'p', expected temp"),
    ({"pianolm": {"by_kind": {"bar": {"top_p": 3}}}}, r"pianolm\.by_kind\.bar\.top_p=3 found, expected"),
    ([], "list found, expected a JSON object"),
    ("{", "not readable as JSON"),
    ("[" * 100_000, "not readable as JSON"),
]


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_a_wrong_value_is_one_sentence_that_names_file_and_key(
    content: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"{FILE}: {message}") as error:
        read_sampling(written(tmp_path, content))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=FILE):
        sampling_beside(tmp_path / "model.safetensors")


def test_settings_are_written_beside_the_keys_that_are_there(tmp_path: Path) -> None:
    written(tmp_path, {"eos_token_id": 7, "_from_model_config": True, "top_k": 3, "pianolm": {"repeat": 9}})
    write_sampling(tmp_path, {**SETTINGS, "min_p": None})
    assert read_sampling(tmp_path) == {name: value for name, value in SETTINGS.items() if name != "min_p"}
    content = json.loads((tmp_path / FILE).read_text())
    assert content["eos_token_id"] == 7
    assert content["do_sample"] is True
    assert "_from_model_config" not in content, "transformers would ignore our part beside it"
    before = (tmp_path / FILE).read_bytes()
    write_sampling(tmp_path, SamplingSettings().sampling)
    assert (tmp_path / FILE).read_bytes() == before


def test_the_most_likely_token_is_do_sample_false(tmp_path: Path) -> None:
    write_sampling(tmp_path, {"temperature": 0, "top_p": 0.5})
    assert json.loads((tmp_path / FILE).read_text()) == {"do_sample": False, "top_p": 0.5}
    assert read_sampling(tmp_path) == {"temperature": 0, "top_p": 0.5}


def test_transformers_loads_generates_and_saves_a_model_with_settings(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", velocity=True)
    write_sampling(directory, SETTINGS)
    model = AutoModelForCausalLM.from_pretrained(directory)
    config = model.generation_config
    assert (config.do_sample, config.temperature, config.top_p, config.top_k) == (True, 0.9, 0.8, 7)
    torch.manual_seed(0)
    start = torch.tensor([[config.bos_token_id]])
    out = [model.generate(start, max_new_tokens=20, attention_mask=torch.ones_like(start)) for _ in range(2)]
    assert not torch.equal(*out), "its own generate samples"
    again = tmp_path / "again"
    model.save_pretrained(again)
    assert read_sampling(again) == read_sampling(directory) == SETTINGS
    shutil.copytree(directory / "tokenizer", again / "tokenizer")
    assert PianoLM.from_pretrained(again).generation_defaults.sampling == SETTINGS
