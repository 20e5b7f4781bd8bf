"""Optimizer `muon`: Muon for the matrices of the layers, AdamW for embeddings, norms and the output layer.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) takes Nesterov momentum of the
gradient and replaces it by a matrix of nearly equal singular values, found by five Newton–Schulz steps. The rate is
multiplied by √max(1, rows / columns).

`torch.optim.Muon` takes these steps in bfloat16, which a processor without instructions for it multiplies far more
slowly than float32: on one with AVX2 alone they took more than half of a training step of the bundled model. Here
they run in float32 on CPUs, and for all matrices of one shape at once (`experiments/benchmarks/training-speed`). Under
FSDP2 they need whole matrices: each process gathers and orthogonalizes its share of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from torch.optim import AdamW, Muon, Optimizer

from pianolm.lm.optimizer import OptimizerSettings, parameter_groups


def make(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Muon at `optimizer.lr` beside AdamW at `optimizer.adamw_lr`, in one optimizer.

    `optimizer.options` holds further arguments of `torch.optim.Muon`, such as `momentum`.
    """
    decayed, rest = parameter_groups(model, settings)
    head = {id(parameter) for parameter in getattr(model, "lm_head", nn.Identity()).parameters()}
    matrices = [parameter for parameter in decayed["params"] if id(parameter) not in head]
    others = [{**decayed, "params": [p for p in decayed["params"] if id(p) in head]}, rest]
    return MuonWithAdamW(
        BatchedMuon(matrices, settings.lr, settings.weight_decay, **settings.options),
        AdamW(
            [group for group in others if group["params"]], settings.adamw_lr or settings.lr, settings.betas
        ),
    )


class BatchedMuon(Muon):
    """`torch.optim.Muon` with Newton–Schulz steps for all matrices of one shape at once, on CPUs in float32."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of every matrix that has a gradient.

        Args:
            closure: Computes loss and gradients first.
        """
        loss = _loss_of(closure)
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_shape[matrix.shape].append((matrix, self._momentum(matrix, group)))
            for (rows, columns), pairs in of_shape.items():
                updates_NRC = torch.stack([update for _, update in pairs])
                of_group = group["ns_coefficients"], group["ns_steps"], group["eps"]
                directions = _orthogonalize_together(updates_NRC, *of_group)
                rate = group["lr"] * _scale(rows, columns, group["adjust_lr_fn"])
                for (matrix, _), direction in zip(pairs, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-rate)
        return loss

    def _momentum(self, matrix: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """The update before it is orthogonalized; adds the gradient to the running mean of this matrix."""
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(mean, group["momentum"]) if group["nesterov"] else mean


def _loss_of(closure: Callable[[], Any] | None) -> Any:
    """What a closure returns once it has computed loss and gradients, as steps run without gradients; else None."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _scale(rows: int, columns: int, adjust_lr_fn: str | None) -> float:
    """What the rate of a matrix is multiplied by: the original rule, or the one for updates as large as AdamW's."""
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _orthogonalize_together(updates_NRC: Tensor, *settings: Any) -> Tensor:
    """`orthogonalize`; where each process holds some rows of all matrices, it does its share of whole matrices."""
    if not isinstance(updates_NRC, DTensor):
        return orthogonalize(updates_NRC, *settings)
    mesh, rows = updates_NRC.device_mesh, updates_NRC.placements
    own_nRC = updates_NRC.redistribute(mesh, [Shard(0)]).to_local()
    directions_nRC = orthogonalize(own_nRC, *settings).contiguous()
    shape, stride = updates_NRC.shape, updates_NRC.stride()
    directions_NRC = DTensor.from_local(directions_nRC, mesh, [Shard(0)], shape=shape, stride=stride)
    return directions_NRC.redistribute(mesh, rows)


def orthogonalize(matrices_NRC: Tensor, coefficients: Sequence[float], steps: int, epsilon: float) -> Tensor:
    """Matrices of the same singular vectors whose singular values are all near 1, by Newton–Schulz steps.

    Args:
        matrices_NRC: N matrices of R rows and C columns.
        coefficients: a, b, c of the polynomial a·x + b·x³ + c·x⁵.
        steps: How often it is applied.
        epsilon: The smallest norm that a matrix is divided by.

    Returns:
        [N, R, C] in float32 on CPUs, elsewhere in bfloat16.
    """
    a, b, c = coefficients
    x = matrices_NRC.to(torch.float32 if matrices_NRC.device.type == "cpu" else torch.bfloat16)
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=epsilon)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonWithAdamW(Optimizer):
    """Two optimizers as one: their parameter groups in a row, and one state, so that checkpoints hold both.

    Args:
        muon: Has one parameter group, which becomes the first.
        adamw: Its groups follow.
    """

    def __init__(self, muon: Muon, adamw: AdamW) -> None:
        self._muon, self._adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of both.

        Args:
            closure: Computes loss and gradients first.
        """
        loss = _loss_of(closure)
        # loading a state replaces groups and state, so the two get them anew
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        for part in (self._muon, self._adamw):
            part.state = self.state
            part.step()
        return loss
