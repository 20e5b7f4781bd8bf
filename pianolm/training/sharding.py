"""FSDP2 (`torch.distributed.fsdp.fully_shard`): each process holds a part of every weight, gradient and moment.

Checkpoints are gathered into the one file that a single process would write, so that a run resumes on any number of
processes with any strategy, and what reads checkpoints need not know how they were trained. A file for each process
would be written faster, but could not be read without converting it; a language model of a few gigabytes is
gathered in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(module: L.LightningModule, layers: Iterable[nn.Module], methods: Iterable[str]) -> None:
    """Divides the weights of a module among the processes of its device mesh; called in `configure_model`.

    The weights of each layer are gathered when it computes, in bf16 with `bf16-mixed`, and its gradients are summed
    in float32. Those outside the layers (embeddings, the last norm) are gathered once for each batch.

    Args:
        module: Gets sharded weights.
        layers: Its parts that are gathered one by one.
        methods: Methods beside `forward` that use the weights and that training and validation call.
    """
    assert module.device_mesh is not None, "set by the strategy"
    mesh = module.device_mesh["data_parallel"]
    low = torch.bfloat16 if module.trainer.precision == "bf16-mixed" else None
    # inputs stay as they are: the residual stream is float32 under autocast, too
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)
    for name in methods:
        register_fsdp_forward_method(module, name)


def is_sharded(module: nn.Module) -> bool:
    """Whether this process holds only a part of the weights."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(value: Any) -> Any:
    """A sharded tensor gathered by all processes together; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints like those of one process.

    Lightning's own single file numbers the optimizer's states by the order of the module's parameters, a plain run by
    that of the parameter groups, which differ here.

    Args:
        processes: Processes in all, each of which gets a part of every weight.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(
            data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The states are restored by `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, on process 0; the others take part and keep nothing."""
        assert self.lightning_module is not None, "training"
        state = {name: self._gathered(value) for name, value in self.lightning_module.state_dict().items()}
        return state if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, on process 0; the others take part and keep nothing."""
        plain = getattr(optimizer, "_optimizer", optimizer)  # Lightning's wrapper
        state = plain.state_dict()
        gathered = {
            number: {name: self._gathered(value) for name, value in of_parameter.items()}
            for number, of_parameter in state["state"].items()
        }
        return {**state, "state": gathered} if self.is_global_zero else {}

    def _gathered(self, value: Any) -> Any:
        """A whole tensor on the CPU of process 0; one at a time in the memory of the others."""
        if not isinstance(value, DTensor):
            return value
        gathered = value.full_tensor()
        return gathered.cpu() if self.is_global_zero else None

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads the file in every process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Takes this process's part of the weights."""
        assert self.lightning_module is not None, "training"
        own = self.lightning_module.state_dict()
        state = {name: _part(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes this process's part of the optimizers' states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            numbers = [number for group in state["param_groups"] for number in group["params"]]
            of_number = dict(zip(numbers, parameters, strict=True))
            parts = {
                number: {name: _part(value, of_number[number]) for name, value in of_parameter.items()}
                for number, of_parameter in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def _part(value: Any, like: Tensor | None) -> Any:
    """A tensor sharded as another of its shape; anything else, such as a count of steps, as it is."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value, like.device_mesh, like.placements)
    return value
