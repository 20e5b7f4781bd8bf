"""What a run works on: accelerator, processes, precision, threads. Importing this and planning need no torch."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pianolm.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
"""What the stages of `SMALL` train with on any hardware."""
SMALL = ("beats", "velvq")
"""Stages whose options have their own group, and whose networks train in full precision on one process."""
_NVIDIA = Path("/proc/driver/nvidia/gpus")
_PROCESSOR = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Hardware:
    """Resolved hardware.

    Attributes:
        accelerator: cpu or gpu.
        devices: Processes on this machine.
        num_nodes: Machines.
        strategy: Lightning's strategy.
        precision: Lightning's precision.
    """

    accelerator: str
    devices: int
    num_nodes: int
    strategy: str
    precision: str

    @property
    def processes(self) -> int:
        """Processes in all."""
        return self.devices * self.num_nodes


def trainer_arguments(cfg: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """The Trainer's arguments of a stage: base and finetune have their own, which default to `trainer`."""
    arguments: Mapping[str, Any] = cfg.get(stage, {}).get("trainer", cfg["trainer"])
    return {**arguments, **ONE_PROCESS} if stage in SMALL else arguments


def resolve_hardware(wanted: Mapping[str, Any]) -> Hardware:
    """Settles `auto` for this machine; GPUs that are asked for need not be there.

    Args:
        wanted: Mapping with `accelerator`, `devices`, `num_nodes`, `strategy` and `precision`: the group `trainer` or
            `hardware`.
    """
    accelerator, devices = wanted["accelerator"], wanted["devices"]
    if accelerator == "auto":
        accelerator = "gpu" if count_gpus() else "cpu"
    if devices == "auto":
        devices = max(count_gpus(), 1) if accelerator == "gpu" else 1
    precision, strategy, num_nodes = wanted["precision"], wanted["strategy"], int(wanted["num_nodes"])
    if precision == "auto":
        fast = accelerator == "gpu" or bf16_instructions() is not None
        precision = "bf16-mixed" if fast else "32-true"
    if strategy == "auto" and int(devices) * num_nodes > 1:
        strategy = "ddp"
    return Hardware(accelerator, int(devices), num_nodes, strategy, precision)


@functools.cache
def bf16_instructions() -> str | None:
    """The processor's instructions for bf16 matrix products, AMX or AVX-512 BF16; None if it has neither.

    With either, steps of small language models are faster in bf16 (`experiments/benchmarks/training-speed`); without
    them bf16 is emulated and slower.
    """
    try:
        flags = set(_PROCESSOR.read_text("utf-8").split())
    except OSError:
        return None
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), None)


def precision_said(hardware: Hardware) -> str:
    """The precision that `auto` chose, why, and how to choose it."""
    if hardware.accelerator == "gpu":
        reason = "on a GPU"
    elif (found := bf16_instructions()) is not None:
        reason = f"as this processor has {found}"
    else:
        reason = "as this processor has neither AMX nor AVX-512 BF16"
    other = "bf16-mixed" if hardware.precision == "32-true" else "32-true"
    return f"precision {hardware.precision}, {reason}; hardware.precision={other} for the other"


def require(hardware: Hardware) -> None:
    """Checks that this machine has the hardware.

    Raises:
        UserError: GPUs are asked for that it does not have.
    """
    gpus = count_gpus()
    if hardware.accelerator == "gpu" and hardware.devices > gpus:
        raise UserError(
            f"hardware.devices={hardware.devices} with hardware.accelerator=gpu found, but this machine shows "
            f"{gpus or 'no'} GPU{'s' if gpus > 1 else ''}; use hardware=cpu or hardware=auto"
        )


def count_gpus() -> int:
    """GPUs that torch can use; without importing torch where nothing has imported it yet."""
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "cuda"):
        return int(torch.cuda.device_count())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    spec = importlib.util.find_spec("torch")
    libraries = Path(spec.origin).parent / "lib" if spec is not None and spec.origin else None
    if libraries is None or not any(libraries.glob("*torch_cuda*")):
        return 0  # a build of torch for CPUs
    there = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    return there if visible is None else min(there, len(visible.split(",")))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(cfg: Mapping[str, Any], processes: int) -> None:
    """Sets torch's threads: processes that each take all cores slow each other down."""
    threads = cfg["compute"]["threads"]
    if threads is not None or processes > 1:
        import torch

        torch.set_num_threads(int(threads) if threads is not None else max(cores() // processes, 1))


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks instead of returning them to the system.

    Activations are allocated and freed in every step; as mapped blocks each costs page faults, which on small models
    take as long as the arithmetic. Does nothing with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
