"""The loss of the output layer against the plain one of torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pianolm.lm import loss
from pianolm.lm.loss import head_nll

N, D, V = 50, 16, 37


def made(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(V, (N,), generator=generator)


@pytest.mark.parametrize("chunk", [7, 25, 1024])
def test_loss_and_gradient_are_those_of_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    hidden, weight, labels = made()
    nats, nll = head_nll(hidden * 2, weight, labels)
    (3 * nats).backward()
    found = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    expected = F.cross_entropy(hidden * 2 @ weight.T, labels, reduction="none")
    (3 * expected.sum()).backward()
    assert torch.allclose(nll, expected, atol=1e-5)
    assert torch.allclose(nats, expected.sum())
    assert not nll.requires_grad
    for mine, plain in zip(found, (hidden.grad, weight.grad), strict=True):
        assert torch.allclose(mine, plain, atol=1e-4)


@pytest.mark.parametrize("span", [1, 4, 512])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_under_masks_logits_of_other_ids_are_not_computed(
    span: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_SPAN", span)
    monkeypatch.setattr(loss, "CPU_CHUNK", chunk)
    hidden, weight, _ = made()
    masks = torch.zeros(4, V, dtype=torch.bool)
    masks[0, 3:9] = masks[1, 8:] = masks[2, 5] = masks[3, ::3] = True  # the third allows one id alone
    mask = torch.arange(N) % 4
    labels = torch.multinomial(masks[mask].float(), 1, generator=torch.Generator().manual_seed(2))[:, 0]
    nats, nll = head_nll(hidden, weight, labels, masks, mask)
    nats.backward()
    found = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    logits = (hidden @ weight.T).masked_fill(~masks[mask], -torch.inf)
    expected = F.cross_entropy(logits, labels, reduction="none")
    expected.sum().backward()
    assert torch.allclose(nll, expected, atol=1e-5)
    for mine, plain in zip(found, (hidden.grad, weight.grad), strict=True):
        assert torch.allclose(mine, plain, atol=1e-4)


@pytest.mark.parametrize(("span", "expected"), [(1, [[3, 9], [8, 37]]), (4, [[0, 12], [8, 37]])])
def test_spans_hold_what_a_mask_allows(
    span: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_SPAN", span)
    masks = torch.zeros(2, V, dtype=torch.bool)
    masks[0, 3:9] = masks[1, 8:] = True
    assert loss._spans(masks).tolist() == expected


def test_gradient_against_finite_differences() -> None:
    hidden, weight, labels = made()
    direction = torch.randn(V, D, generator=torch.Generator().manual_seed(1))
    head_nll(hidden, weight, labels)[0].backward()
    with torch.no_grad():
        up, down = (head_nll(hidden, weight + step * direction, labels)[0] for step in (1e-2, -1e-2))
    assert torch.isclose((weight.grad * direction).sum(), (up - down) / 2e-2, rtol=1e-2)


def test_autocast_is_followed_and_what_is_frozen_gets_no_gradient() -> None:
    hidden, weight, labels = made()
    with torch.autocast("cpu", torch.bfloat16):
        nats, nll = head_nll(hidden, weight, labels)
        logits = F.linear(hidden, weight)
    assert torch.equal(nll, F.cross_entropy(logits.float(), labels, reduction="none"))
    nats.backward()
    assert weight.grad.dtype == torch.float32
    frozen = weight.detach()
    hidden.grad = None
    head_nll(hidden, frozen, labels)[0].backward()
    assert hidden.grad is not None
    assert frozen.grad is None


def test_no_targets_is_no_loss() -> None:
    hidden, weight, labels = made()
    nats, nll = head_nll(hidden[:0], weight, labels[:0])
    nats.backward()
    assert nats == 0
    assert nll.shape == (0,)
    assert not weight.grad.any()


class Products(TorchDispatchMode):
    """Notes the shapes of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[torch.Size, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.mm.default:
            self.shapes.add(tuple(matrix.shape for matrix in args))
        return func(*args, **(kwargs or {}))


def test_matrix_products_have_few_shapes_whatever_the_number_of_targets() -> None:
    """oneDNN keeps memory for every shape."""
    weight = torch.randn(V, D, requires_grad=True)
    with Products() as products:
        for count in range(1, 300, 7):
            hidden, labels = torch.randn(count, D, requires_grad=True), torch.randint(V, (count,))
            head_nll(hidden, weight, labels)[0].backward()
    assert len(products.shapes) == 3 * 3, "three products of 128, 256 or 384 rows"
