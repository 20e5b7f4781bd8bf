"""Toy trainings in several processes, each of which runs `python -m tests.lm.distributed_toys`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from pianolm.training.checkpointing import AtomicCheckpointIO, BatchCounter
from pianolm.training.sharding import ShardedStrategy
from tests.lm.toys import toy_data, toy_model, toy_module, toy_trainer

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"name": "muon", "lr": 0.02, "adamw_lr": 1e-3},
}
STEPS = 5


@dataclass(frozen=True)
class Run:
    """A training of a toy model.

    Attributes:
        name: Of its last checkpoint, `<name>.ckpt`.
        strategy: auto, ddp or fsdp.
        optimizer: A key of `OPTIMIZERS`.
        steps: Optimizer steps in all.
        resume: Name of the run that it continues, empty for none.
        micro_batch_tokens: Largest micro-batch; 0 for no limit.
        checkpointing: Whether activations are computed again.
    """

    name: str
    strategy: str = "auto"
    optimizer: str = "adamw"
    steps: int = STEPS
    resume: str = ""
    micro_batch_tokens: int = 0
    checkpointing: bool = False


def train(run: Run, store: Path, out: Path, processes: int = 1) -> None:
    """Trains in this process and those that were started with it."""
    L.seed_everything(0, verbose=False)
    changes = {**OPTIMIZERS[run.optimizer], "max_steps": STEPS}
    module = toy_module(toy_model(layers=3), **changes)
    if run.checkpointing:
        module.model.gradient_checkpointing_enable({"use_reentrant": False})
    micro = run.micro_batch_tokens or None
    data = toy_data(store, processes=processes, micro_batch_tokens=micro, **changes)
    trainer = toy_trainer(
        strategy=ShardedStrategy(processes) if run.strategy == "fsdp" else run.strategy,
        devices=processes,
        max_steps=run.steps,
        val_check_interval=STEPS * data.plan.accumulate,
        accumulate_grad_batches=data.plan.accumulate,
        gradient_clip_val=0.5,
        callbacks=[BatchCounter()],
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(
        module, data, ckpt_path=str(out / f"{run.resume}.ckpt") if run.resume else None, weights_only=True
    )
    trainer.save_checkpoint(out / f"{run.name}.ckpt", weights_only=False)


def start(processes: int, runs: list[Run], store: Path, out: Path) -> None:
    """Trains the runs, one after the other, in so many new processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = json.dumps({"runs": [asdict(run) for run in runs], "store": str(store), "out": str(out)})
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.lm.distributed_toys", job],
            env={
                **os.environ,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(processes),
                "NODE_RANK": "0",
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1",
            },
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=800)[0] for process in started]
    assert not any(process.returncode for process in started), outputs


def checkpoint(out: Path, name: str) -> dict[str, Any]:
    """The weights and the optimizer's state after a run, by name; and its validation loss."""
    saved = torch.load(out / f"{name}.ckpt", weights_only=True)
    (state,) = saved["optimizer_states"]
    moments = {
        f"{number}.{key}": value
        for number, of_parameter in state["state"].items()
        for key, value in of_parameter.items()
    }
    return {**saved["state_dict"], **moments}


def largest_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Over all tensors of two checkpoints."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    size = os.environ["WORLD_SIZE"]
    for fields in given["runs"]:
        os.environ["WORLD_SIZE"] = size  # Lightning's environment takes it away when a Trainer ends
        train(Run(**fields), Path(given["store"]), Path(given["out"]), int(size))
