"""The dataclasses and the code agree on what there is."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from pianolm.config.data import DATA
from pianolm.config.evaluate import EVALUATE
from pianolm.config.generate import KINDS
from pianolm.config.help import help_text, options
from pianolm.config.option import fields_of, is_group, sentence_of
from pianolm.config.root import Config, group_names
from pianolm.data.sources import SOURCES
from pianolm.run import CONFIG_DIR
from pianolm.stages import find_stage, stage_names
from pianolm.tokenizer.vocabulary import KIND_GROUPS
from pianolm.velvq.module import FORMS


def test_choices_are_those_of_the_code() -> None:
    def files(group: str) -> set[str]:
        return {path.stem for path in (CONFIG_DIR / group).glob("*.yaml")}

    assert set(DATA) == set(SOURCES) == files("data")
    assert set(EVALUATE) == files("evaluate")
    assert set(FORMS) | {"bins"} == files("velvq"), "bins is a smaller segment"
    assert set(stage_names()) == files("stage")
    assert set(KINDS) == {name for name in KIND_GROUPS if not name.startswith("l")}


def test_every_option_has_a_sentence_and_is_told_by_help() -> None:
    text = help_text(CONFIG_DIR)
    for key, field, hint, _ in options(CONFIG_DIR):
        assert sentence_of(field).endswith("."), key
        assert f"  {key}=" in text
        assert hint is not None
    for group in group_names():
        if group in ("base", "finetune", "upstream"):
            continue
        assert f"\n  {group:<12}" in text


def test_there_are_at_most_164_options_beside_those_of_the_trainer() -> None:
    own = [key for key, *_ in options(CONFIG_DIR) if not key.startswith("trainer.")]
    assert len(own) == len(set(own)) <= 164


@pytest.mark.parametrize("name", stage_names())
def test_every_stage_says_what_it_does(name: str) -> None:
    stage = find_stage(name)
    assert stage.sentence.endswith(".")
    assert stage.version >= 1


def test_groups_are_dataclasses() -> None:
    for name in group_names():
        _, hint = fields_of(Config)[name]
        assert is_group(hint) or name in ("callbacks", "logger"), name
    assert OmegaConf.get_type(OmegaConf.structured(Config)) is Config
