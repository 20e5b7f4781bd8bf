"""Settings of generation: ranges, kinds of token, and the options of the stage."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from pianolm import PianoLM
from pianolm.errors import UserError
from pianolm.generation.config import SAMPLED_KINDS, GenerationConfig, SamplingRule, StoppingCriteria
from tests.tiny import composed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature=-1 found, expected 0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"top_p": 0}, "top_p=0 found, expected more than 0 and at most 1"),
        ({"top_p": 1.5}, r"top_p=1\.5"),
        ({"top_k": -2}, "top_k=-2"),
        ({"top_k": 2.5}, r"top_k=2\.5 found, expected 0 \(off\) or a larger whole number"),
        ({"min_p": 2}, "min_p=2"),
        ({"repeat": -1}, r"repeat=-1 found, expected 0 \(off\) or more"),
        ({"repeat": math.inf}, "repeat=inf"),
        ({"beats": 0}, "beats=0 found, expected at least 1"),
        ({"seconds": 0.0}, r"seconds=0\.0 found, expected more than 0"),
        ({"seconds": math.inf}, "seconds=inf"),
        ({"tempo_bpm": 600}, "tempo_bpm=600 found, expected 15 to 480"),
        (
            {"by_kind": {"tempi": {}}},
            r"by_kind\.tempi: unknown kind of token, expected one of tempo, pitch, ",
        ),
        ({"by_kind": {"tempo": 0.7}}, r"by_kind\.tempo=0\.7 found, expected settings such as"),
        (
            {"by_kind": {"tempo": {"heat": 1}}},
            r"by_kind\.tempo\.heat: unknown setting, expected one of temper",
        ),
        ({"by_kind": {"tempo": {"top_p": 2}}}, r"by_kind\.tempo\.top_p=2 found"),
    ],
)
def test_a_wrong_setting_is_one_sentence(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as error:
        GenerationConfig(**wrong)
    assert "\n" not in str(error.value)


def test_settings_of_a_kind_replace_the_general_ones_of_that_kind() -> None:
    config = GenerationConfig(temperature=0.8, top_k=5, by_kind={"pitch": {"temperature": 0.5}})
    assert config.rule == SamplingRule(0.8, 5)
    assert config.rule_of("pitch") == SamplingRule(0.5, 5)
    assert all(config.rule_of(kind) == config.rule for kind in SAMPLED_KINDS if kind != "pitch")


def test_seconds_replace_beats() -> None:
    assert StoppingCriteria(beats=0, seconds=2.0).is_met(1, 2.0)
    assert not StoppingCriteria(beats=1, seconds=2.0).is_met(1, 1.9)
    assert StoppingCriteria(beats=3).is_met(3, 0.1)
    assert not StoppingCriteria(beats=3).is_met(2, 100)


def options(**changes: Any) -> dict[str, Any]:
    plain = {"beats": 64, "seconds": None, "tempo_bpm": None, "temperature": 0.9, "top_p": 1.0}
    return {**plain, "top_k": 0, "min_p": 0.0, "by_kind": {}, "pieces": 4, "page": True, **changes}


def test_options_of_the_stage_become_a_configuration() -> None:
    expected = GenerationConfig(beats=64, temperature=0.9, top_p=1.0, by_kind={"bar": {"top_k": 2}})
    unset = {"temperature": None, "top_k": None}
    assert GenerationConfig.from_options(options(by_kind={"bar": {**unset, "top_k": 2}})) == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_p": 2}, r"generate\.top_p=2 found"),
        ({"by_kind": {"mood": {"temperature": 1}}}, r"generate\.by_kind\.mood: unknown kind"),
        ({"by_kind": {"pitch": 1}}, r"generate\.by_kind\.pitch=1 found"),
    ],
)
def test_a_wrong_option_is_named_as_on_the_command_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        GenerationConfig.from_options(options(**wrong))


def test_python_has_the_defaults_of_the_command_line() -> None:
    options = composed("stage=generate")["generate"]
    assert GenerationConfig() == GenerationConfig.from_options(options)
    for call in (PianoLM.generate, PianoLM.generate_pieces, PianoLM.stream, PianoLM.render_dynamics):
        for name, parameter in inspect.signature(call).parameters.items():
            if name in options and name != "pieces":  # a list of one piece is what a call expects
                assert parameter.default == options[name], name
    with pytest.raises(UserError, match=r"^generate\.end='later' found, expected one of model, never"):
        GenerationConfig.from_options({**options, "end": "later"})
