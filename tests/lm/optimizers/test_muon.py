from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from pianolm.errors import UserError
from pianolm.lm.optimizer import make_optimizer
from pianolm.lm.optimizers.muon import BatchedMuon
from tests.lm.toys import toy_model, toy_optimizer


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_matrices_of_the_layers_learn_by_muon_and_the_rest_by_adamw() -> None:
    for tied in (True, False):
        model = toy_model(tied=tied)
        settings = toy_optimizer(name="muon", lr=0.02, adamw_lr=3e-3, betas=[0.8, 0.9], weight_decay=0.01)
        matrices, *others = make_optimizer(model, settings).param_groups
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        assert {names[id(p)].split(".")[-2] for p in matrices["params"]} == {
            *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        }
        assert (matrices["lr"], matrices["momentum"], matrices["weight_decay"]) == (0.02, 0.95, 0.01)
        assert (matrices["nesterov"], matrices["ns_steps"]) == (True, 5)
        assert {(group["lr"], group["betas"]) for group in others} == {(3e-3, (0.8, 0.9))}
        assert [group["weight_decay"] for group in others] == ([0.0] if tied else [0.01, 0.0])
        assert sum(len(group["params"]) for group in (matrices, *others)) == len(names)


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_a_step_of_a_matrix_has_nearly_equal_singular_values(shape: tuple[int, int]) -> None:
    """Five Newton–Schulz steps bring singular values to between about 0.7 and 1.2, times √max(1, rows / columns)."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(shape))
    model.norm = nn.Parameter(torch.zeros(3))
    settings = toy_optimizer(name="muon", lr=0.02, adamw_lr=1e-3, weight_decay=0.0)
    optimizer = make_optimizer(model, settings)
    set_gradients(model, 0)
    optimizer.step()
    scale = 0.02 * math.sqrt(max(1, shape[0] / shape[1]))
    singular = torch.linalg.svdvals(model.weight.detach()) / scale
    assert ((singular > 0.5) & (singular < 1.3)).all()
    assert torch.allclose(model.norm.abs(), torch.full((3,), 1e-3), rtol=1e-4)


@pytest.mark.parametrize("adjust_lr_fn", [None, "match_rms_adamw"])
def test_steps_are_those_of_torch_to_the_precision_of_its_bfloat16(adjust_lr_fn: str | None) -> None:
    """Batches of one shape, tall and wide matrices, momentum and weight decay, over several steps."""
    torch.manual_seed(0)
    shapes = [(24, 8), (24, 8), (8, 24), (16, 16), (16, 16), (16, 16)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(matrix.detach().clone()) for matrix in ours]
    begin = [matrix.detach().clone() for matrix in ours]
    optimizers = (
        BatchedMuon(ours, lr=0.02, adjust_lr_fn=adjust_lr_fn),
        torch.optim.Muon(theirs, lr=0.02, adjust_lr_fn=adjust_lr_fn),
    )
    for _ in range(4):
        for mine, their in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            their.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for first, mine, their in zip(begin, ours, theirs, strict=True):
        assert torch.linalg.norm(mine - their) < 0.02 * torch.linalg.norm(their - first)


def test_a_loaded_state_continues_bit_for_bit() -> None:
    model, settings = toy_model(), toy_optimizer(name="muon")
    optimizer = make_optimizer(model, settings)
    for seed in range(3):
        set_gradients(model, seed)
        optimizer.step()
    other = copy.deepcopy(model)
    loaded = make_optimizer(other, settings)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    kept = {key for state in loaded.state_dict()["state"].values() for key in state}
    assert kept == {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
    for seed in range(3, 5):
        for network, one in ((model, optimizer), (other, loaded)):
            set_gradients(network, seed)
            one.step()
    for (name, value), same in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(value, same), name


def test_rates_may_be_changed_between_steps() -> None:
    model = toy_model()
    optimizer = make_optimizer(model, toy_optimizer(name="muon", weight_decay=0.0))
    before = copy.deepcopy(model.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    set_gradients(model, 0)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_options_are_those_of_muon() -> None:
    made = make_optimizer(toy_model(), toy_optimizer(name="muon", options={"momentum": 0.9, "ns_steps": 4}))
    assert (made.param_groups[0]["momentum"], made.param_groups[0]["ns_steps"]) == (0.9, 4)
    with pytest.raises(UserError, match=r"optimizer\.options=.*optimizer=muon does not take: .*'nosuch'"):
        make_optimizer(toy_model(), toy_optimizer(name="muon", options={"nosuch": 1}))
