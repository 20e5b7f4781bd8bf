from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pianolm.errors import UserError
from pianolm.lm.llama import CONTROL_SHARE, FILL_SHARE
from pianolm.lm.warm_start import COMPARED_HASHES, tokenizer_beside, untrained_ids, warm_start
from pianolm.tokenizer.vocabulary import CONTROLS, FILL_MARKS, Kind, Vocabulary
from tests.lm.test_train import tokenizer
from tests.lm.toys import toy_model
from tests.toy_tokens import VOCABULARY


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model directory with a tokenizer whose hashes are those of `hashes()`."""
    toy_model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def hashes(**changes: str) -> Any:
    """A tokenizer of the toy models as far as a warm start needs it."""
    return SimpleNamespace(vocabulary=VOCABULARY, hashes={**tokenizer().hashes, **changes})


@pytest.mark.parametrize("part", COMPARED_HASHES)
def test_another_tokenizer_is_one_sentence_that_names_both(base: Path, part: str) -> None:
    with pytest.raises(
        UserError, match=f"trained with {part} {tokenizer().hashes[part]}.* have {part} other"
    ):
        warm_start(toy_model(), base, hashes(**{part: "other"}), Path("tokens"))


def test_velocity_codecs_may_differ(base: Path) -> None:
    model = toy_model(1)
    report = warm_start(model, base, hashes(velocity="other"), Path("tokens"))
    assert report.unexpected == []
    assert torch.equal(model.model.norm.weight, toy_model().model.norm.weight)


def test_the_tokenizer_lies_beside_a_directory_or_a_file(base: Path, tmp_path: Path) -> None:
    assert tokenizer_beside(base) == tokenizer_beside(base / "model.safetensors") == base / "tokenizer"
    assert tokenizer_beside(base / "tokenizer") is None


def test_a_base_without_velocities_is_untrained_on_them(base: Path) -> None:
    ids = untrained_ids(base / "tokenizer", hashes())
    assert torch.equal(ids, torch.from_numpy(VOCABULARY.kind_of == Kind.VELOCITY))
    assert untrained_ids(None, hashes()) is None


@pytest.mark.parametrize(
    ("share", "kinds"), [(FILL_SHARE, FILL_MARKS), (CONTROL_SHARE, CONTROLS)], ids=["fill", "control"]
)
def test_marks_and_controls_that_the_base_did_not_learn_begin_afresh(
    base: Path, share: str, kinds: tuple[Kind, ...]
) -> None:
    given: Any = SimpleNamespace(vocabulary=Vocabulary())
    velocity = [Kind.VELOCITY]  # the base model's tokenizer has none
    config = SimpleNamespace(**{share: 0.3})
    ids = untrained_ids(base / "tokenizer", given, config)
    assert ids is not None
    assert ids.numpy().tolist() == np.isin(Vocabulary().kind_of, [*velocity, *kinds]).tolist()
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), share: 0.1}))
    ids = untrained_ids(base / "tokenizer", given, config)
    assert ids is not None
    assert ids.numpy().tolist() == np.isin(Vocabulary().kind_of, velocity).tolist()
