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
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
"""What the stages of `SMALL` train with on any hardware."""
DISTRIBUTED = ("ddp", "fsdp")
"""Strategies of several processes: each holds the whole model, or a part of every weight (FSDP2)."""
SMALL = ("beats", "dynamics", "velvq")
"""Stages whose options have their own group, and whose networks train on one process."""
FULL_PRECISION = ("dynamics", "velvq")
"""Stages that train in full precision on any hardware."""
_NVIDIA = Path("/proc/driver/nvidia/gpus")
_PROCESSOR = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Hardware:
    """Resolved hardware.

    Attributes:
        accelerator: cpu or gpu.
        devices: Processes on each machine.
        num_nodes: Machines.
        strategy: Lightning's strategy; fsdp is `pianolm.training.sharding.ShardedStrategy`.
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


@dataclass(frozen=True)
class Launcher:
    """The program that started several processes of this command.

    Attributes:
        name: torchrun or srun.
        rank: Number of this process among all.
        processes: Processes in all.
        devices: Processes on each machine.
    """

    name: str
    rank: int
    processes: int
    devices: int

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self.processes // self.devices


def find_launcher() -> Launcher | None:
    """torchrun, or srun with several processes, where one of them started this process; None elsewhere.

    In a SLURM job, the batch script itself and a step of one process may start processes of their own.

    Raises:
        UserError: The machines have different numbers of processes, or srun was not told how many each has.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        found = Launcher("torchrun", *(int(env[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))
    elif int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        if "SLURM_NTASKS_PER_NODE" not in env:
            raise UserError(
                f"srun started {env['SLURM_STEP_NUM_TASKS']} processes without --ntasks-per-node; give it, so that "
                "every machine has equally many"
            )
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE")
        found = Launcher("srun", *(int(env[name]) for name in names))
    else:
        return None
    if found.processes % found.devices:
        raise UserError(
            f"{found.name} started {found.processes} processes, {found.devices} of them on this machine; expected "
            "equally many on every machine"
        )
    return found


def trainer_arguments(cfg: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """The Trainer's arguments of a stage: base and finetune have their own, which default to `trainer`."""
    arguments: Mapping[str, Any] = cfg.get(stage, {}).get("trainer", cfg["trainer"])
    one_process = ONE_PROCESS if stage in SMALL else {}
    full_precision = {"precision": "32-true"} if stage in FULL_PRECISION else {}
    return {**arguments, **one_process, **full_precision}


def resolve_hardware(wanted: Mapping[str, Any]) -> Hardware:
    """Settles `auto` for this machine; GPUs that are asked for need not be there.

    Args:
        wanted: Mapping with `accelerator`, `devices`, `num_nodes`, `strategy` and `precision`: the group `trainer` or
            `hardware`. Devices and machines that are `auto` are those of torchrun or srun, where one of them started
            this process, else all GPUs of this machine.
    """
    accelerator, devices, num_nodes = wanted["accelerator"], wanted["devices"], wanted["num_nodes"]
    launcher = find_launcher()
    if accelerator == "auto":
        accelerator = "gpu" if count_gpus() else "cpu"
    if devices == "auto" and launcher is not None:
        devices = launcher.devices
    elif devices == "auto":
        devices = max(count_gpus(), 1) if accelerator == "gpu" else 1
    if num_nodes == "auto":
        num_nodes = 1 if launcher is None else launcher.num_nodes
    precision, strategy, processes = wanted["precision"], wanted["strategy"], int(devices) * int(num_nodes)
    if precision == "auto":
        fast = accelerator == "gpu" or bf16_instructions() is not None
        precision = "bf16-mixed" if fast else "32-true"
    if strategy in ("auto", *DISTRIBUTED):
        strategy = "auto" if processes == 1 else "ddp" if strategy == "auto" else strategy
    return Hardware(accelerator, int(devices), int(num_nodes), strategy, precision)


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


def require(hardware: Hardware, together: bool = False) -> None:
    """Checks that this machine has the hardware, and that as many processes were started as are asked for.

    Args:
        hardware: What is asked for.
        together: Whether processes that torchrun or srun started share the work, as in training a language model.

    Raises:
        UserError: GPUs are asked for that it does not have, or other processes than were started.
    """
    launcher, gpus = find_launcher(), count_gpus()
    asked = f"hardware.devices={hardware.devices} with hardware.num_nodes={hardware.num_nodes} found"
    if launcher is None and hardware.num_nodes > 1:
        raise UserError(
            f"{asked}, but this process was started alone; start the same command on every machine with torchrun or "
            "srun"
        )
    if together and launcher is not None:
        started = launcher.devices, launcher.num_nodes
        if started != (hardware.devices, hardware.num_nodes):
            raise UserError(
                f"{asked}, but {launcher.name} started {launcher.devices} on each of {launcher.num_nodes}; use "
                "hardware=torchrun or hardware=slurm, which take what was started"
            )
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
    """Sets torch's threads: processes that each take all cores of a machine slow each other down.

    Args:
        cfg: The configuration.
        processes: Processes on this machine.
    """
    threads = cfg["compute"]["threads"]
    if threads is not None or processes > 1:
        import torch

        launcher, mine = find_launcher(), cores() // processes
        if launcher is not None and launcher.name == "srun":  # a process may see its own cores alone
            mine = int(os.environ.get("SLURM_CPUS_PER_TASK", mine))
        torch.set_num_threads(int(threads) if threads is not None else max(mine, 1))


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
