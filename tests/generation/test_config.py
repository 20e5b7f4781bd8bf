"""Settings of generation: ranges, kinds of token, and the options of the stage."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pianolm import PianoLM
from pianolm.config.generate import SAMPLING_DEFAULTS
from pianolm.errors import UserError
from pianolm.generation.config import (
    SAMPLED_KINDS,
    GenerationConfig,
    SamplingRule,
    SamplingSettings,
    StoppingCriteria,
    told_of_model,
)
from tests.tiny import composed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature=-1 found, expected 0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": 101}, r"temperature=101 found, expected 0 \(most likely token\) to 100"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"top_p": 0}, "top_p=0 found, expected more than 0 and at most 1"),
        ({"top_p": 1.5}, r"top_p=1\.5"),
        ({"top_k": -2}, "top_k=-2"),
        ({"top_k": 2.5}, r"top_k=2\.5 found, expected 0 \(off\) or a larger whole number"),
        ({"min_p": 2}, "min_p=2"),
        ({"repeat": -1}, r"repeat=-1 found, expected 0 \(off\) to 100"),
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
    rules = {"bar": {"temperature": None, "top_k": 2}}
    expected = GenerationConfig(beats=64, temperature=0.9, top_p=1.0, top_k=0, min_p=0.0, by_kind=rules)
    assert GenerationConfig.from_options(options(by_kind=rules)) == expected
    assert expected.rule_of("bar") == SamplingRule(0.9, 2, 1.0)


MODEL = SamplingSettings(
    temperature=1.0,
    repeat=2.0,
    by_kind={"pitch": {"temperature": 0.8, "top_p": 0.9}, "tempo": {"temperature": 0.5}},
)


def test_what_is_given_goes_before_the_models_own_and_that_before_the_defaults() -> None:
    config = GenerationConfig(beats=3, top_p=0.5).over(MODEL)
    assert (config.beats, config.temperature, config.top_p, config.repeat) == (3, 1.0, 0.5, 2.0)
    assert (config.top_k, config.min_p) == (0, 0.0)
    assert config.by_kind == {"pitch": {"temperature": 0.8}, "tempo": {"temperature": 0.5}}
    assert GenerationConfig().over(SamplingSettings()) == GenerationConfig(**SAMPLING_DEFAULTS)


def test_a_general_setting_replaces_the_models_of_single_kinds() -> None:
    config = GenerationConfig(temperature=0.7).over(MODEL)
    assert all(config.rule_of(kind).temperature == 0.7 for kind in SAMPLED_KINDS)
    assert config.rule_of("pitch").top_p == 0.9
    assert config.repeat == 2.0


def test_a_setting_of_a_kind_replaces_the_models_of_that_kind_alone() -> None:
    rules = {"pitch": {"temperature": 0.3}, "tempo": {"temperature": None}, "bar": {"top_k": 1}}
    config = GenerationConfig(by_kind=rules).over(MODEL)
    assert config.by_kind["pitch"] == {"temperature": 0.3, "top_p": 0.9}
    assert config.rule_of("tempo") == config.rule, "null: as for all tokens"
    assert config.rule_of("bar") == replace(config.rule, top_k=1)


@given(st.data())
def test_settings_over_a_model_are_complete_and_stay_the_same_over_any_other(data: st.DataObject) -> None:
    own, model, other = (data.draw(settings()) for _ in range(3))
    config = GenerationConfig(**own.sampling).over(model)
    assert None not in config.sampling.values()
    assert config.over(other) == config
    assert config.left_of(other) == SamplingSettings()


def settings() -> st.SearchStrategy[SamplingSettings]:
    rule = {"temperature": st.none() | st.floats(0, 2), "top_p": st.none() | st.floats(0.1, 1)}
    kinds = st.dictionaries(st.sampled_from(["pitch", "bar"]), st.fixed_dictionaries({}, optional=rule))
    return st.builds(
        SamplingSettings, **rule, repeat=st.none() | st.floats(0, 3), min_p=st.none(), by_kind=kinds
    )


def test_settings_of_the_model_that_hold_are_told_in_a_short_sentence() -> None:
    assert (
        told_of_model(GenerationConfig(), MODEL)
        == "samples as the model suggests; generate=plain does without"
    )
    told = told_of_model(GenerationConfig(top_p=0.5), MODEL)
    assert told == "samples as the model suggests where no option says otherwise; generate=plain does without"
    words = "temperature=1 repeat=2 by_kind.pitch.temperature=0.8 by_kind.tempo.temperature=0.5"
    assert GenerationConfig(top_p=0.5).left_of(MODEL).words() == words
    plain = GenerationConfig.from_options(composed("generate=plain")["generate"])
    assert told_of_model(plain, MODEL) == ""


def test_generate_plain_has_the_defaults_of_a_model_that_brings_nothing() -> None:
    plain = composed("generate=plain")["generate"]
    assert {name: plain[name] for name in SAMPLING_DEFAULTS} == SAMPLING_DEFAULTS
    assert GenerationConfig.from_options(plain).over(MODEL) == GenerationConfig().over(SamplingSettings())


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


def test_a_gap_refuses_tempo_and_levels_but_lengths_are_of_other_modes() -> None:
    options = {
        "beats": 3,
        "seconds": 2.0,
        "end": "never",
        "tempo_bpm": 90.0,
        "density": 2,
        "temperature": 0.5,
    }
    config = GenerationConfig.of_gaps(options)
    assert config.changed_beyond_sampling == ["tempo_bpm", "density"]
    assert config.temperature == 0.5
