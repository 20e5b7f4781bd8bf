from __future__ import annotations

import numpy as np
import pytest
import torch

from pianolm.errors import UserError
from pianolm.lm.optimizer import Schedule, make_optimizer, parameter_groups
from tests.lm.toys import toy_model, toy_optimizer


def test_matrices_decay_and_nothing_else() -> None:
    for tied in (True, False):
        model = toy_model(tied=tied)
        decayed, not_decayed = parameter_groups(model, toy_optimizer())
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        assert (decayed["weight_decay"], not_decayed["weight_decay"]) == (0.1, 0.0)
        assert {names[id(p)].split(".")[-2] for p in not_decayed["params"]} == {
            "embed_tokens",
            "input_layernorm",
            "post_attention_layernorm",
            "norm",
        }
        assert len(decayed["params"]) + len(not_decayed["params"]) == len(names)
        assert ("lm_head.weight" in {names[id(p)] for p in decayed["params"]}) is not tied


def test_learning_rate_warms_up_and_ends_at_the_floor() -> None:
    schedule = toy_optimizer(max_steps=100, warmup_steps=10)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert (np.diff(factors[10:]) <= 0).all()
    assert factors[99] == schedule.factor(500) == pytest.approx(0.1)
    short = toy_optimizer(max_steps=4, warmup_steps=1000)
    assert max(short.factor(step) for step in range(4)) == 1.0
    assert toy_optimizer(max_steps=1).factor(0) == 1.0


def test_wsd_is_stable_until_the_last_steps_whatever_their_number() -> None:
    schedule = toy_optimizer(schedule="wsd", max_steps=100, warmup_steps=10, decay_fraction=0.2)
    longer = toy_optimizer(schedule="wsd", max_steps=200, warmup_steps=10, decay_fraction=0.2)
    assert (schedule.decay_start, longer.decay_start, toy_optimizer().decay_start) == (80, 160, None)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:80] == [longer.factor(step) for step in range(80)]
    assert factors[4] == pytest.approx(0.5)
    assert set(factors[9:80]) == {1.0}
    assert (np.diff(factors[79:]) < 0).all()
    assert factors[84] == pytest.approx(0.1 + 0.9 * (1 - np.sqrt(5 / 20)))
    assert factors[99] == schedule.factor(500) == pytest.approx(0.1)
    never = toy_optimizer(schedule="wsd", max_steps=10, warmup_steps=0, decay_fraction=0.0)
    assert {never.factor(step) for step in range(10)} == {1.0}
    always = toy_optimizer(schedule="wsd", max_steps=10, warmup_steps=4, decay_fraction=1.0)
    assert always.decay_start == 4


def test_a_loaded_schedule_gives_the_step_and_keeps_its_own_peak() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    theirs, own = (toy_optimizer(lr=lr, max_steps=steps) for lr, steps in ((1e-2, 8), (3e-2, 100)))
    saved, loaded = (torch.optim.AdamW(parameters, settings.lr) for settings in (theirs, own))
    schedule, longer = Schedule(saved, theirs), Schedule(loaded, own)
    for _ in range(5):
        saved.step()
        schedule.step()
    loaded.load_state_dict(saved.state_dict())
    longer.load_state_dict(schedule.state_dict())
    assert loaded.param_groups[0]["lr"] == 3e-2 * own.factor(5)
    loaded.step()
    longer.step()
    assert loaded.param_groups[0]["lr"] == 3e-2 * own.factor(6)


def test_adamw_gets_the_groups_and_the_settings() -> None:
    model, settings = toy_model(), toy_optimizer(lr=3e-3, betas=[0.8, 0.9], weight_decay=0.2)
    made = make_optimizer(model, settings)
    assert isinstance(made, torch.optim.AdamW)
    assert [group["weight_decay"] for group in made.param_groups] == [0.2, 0.0]
    assert {group["lr"] for group in made.param_groups} == {3e-3}
    assert {group["betas"] for group in made.param_groups} == {(0.8, 0.9)}


def test_further_arguments_are_options() -> None:
    made = make_optimizer(toy_model(), toy_optimizer(options={"eps": 1e-5}))
    assert {group["eps"] for group in made.param_groups} == {1e-5}


def test_an_option_that_the_optimizer_lacks_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"optimizer=adamw does not take: .*'nosuch'"):
        make_optimizer(toy_model(), toy_optimizer(options={"nosuch": 1}))
