"""Packing a trained model, to be bundled."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pianolm import PianoLM
from pianolm.artifacts import problem_of, read_record, write_record
from pianolm.export.model_files import stored_dtype
from pianolm.tokenizer.vocabulary import FILL_MARKS
from tests.experiment import load


@pytest.fixture(scope="module")
def packing() -> ModuleType:
    return load("box-model/pack.py")


def test_a_packed_model_is_whole_in_16_bits_with_credits_and_its_card(
    chain: Path, packing: ModuleType, tmp_path: Path
) -> None:
    artifacts = chain / "artifacts"
    (model,) = (artifacts / "finetune").glob("[!.]*")
    out = tmp_path / "tiny"
    out.mkdir()
    (out / "README.md").write_text("# tiny\n")
    packing.pack(model, model, artifacts, out)
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
        packing.pack(tmp_path, tmp_path, chain / "artifacts", tmp_path / "out")


def test_weights_are_the_mean_but_those_of_marks_of_gaps(chain: Path, packing: ModuleType) -> None:
    (model,), (base,) = ((chain / "artifacts" / stage).glob("[!.]*") for stage in ("finetune", "base"))
    first, second = PianoLM.from_pretrained(model), PianoLM.from_pretrained(base)
    of_both = packing.mean_of(model, base).model.get_input_embeddings().weight
    table, other = (lm.model.get_input_embeddings().weight for lm in (first, second))
    is_mark = torch.from_numpy(np.isin(first.tokenizer.vocabulary.kind_of, FILL_MARKS))
    assert torch.equal(of_both[is_mark], table[is_mark])
    assert int(is_mark.sum()) == len(FILL_MARKS)
    assert torch.allclose(of_both[~is_mark], (table + other)[~is_mark] / 2)
