"""Jobs of a sweep as tasks of Ray (`hydra/launcher=ray`).

The published plugin, hydra-ray-launcher 1.2.2, pins cloudpickle below 3, which joblib 1.6 refuses, and ends the whole
sweep when a machine is lost.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from pianolm.errors import UserError
from pianolm.pipeline.job_cores import Share
from pianolm.pipeline.sweep import SweepCallback
from pianolm.signals import STOP
from pianolm.training.hardware import cores

Job = tuple[HydraContext, DictConfig, TaskFunction]
"""What Hydra gives a launcher: its context, the configuration of the sweep, and the function of a job."""

_OBJECT_STORE_BYTES = 100 * 2**20
"""Ray's shared memory, of which a sweep uses nearly nothing; by default Ray would take a third of the machine's."""

_REACH_SEC = 10.0
"""How long a cluster may take to accept a connection."""

_SHORT_TEMPORARY, _LONGEST_TEMPORARY = Path("/tmp"), 40
"""Ray's sockets lie 67 characters below the temporary directory, and paths of sockets have at most 107."""


def launch(
    options: Mapping[str, Any], job_overrides: Sequence[Sequence[str]], first: int, job: Job
) -> list[JobReturn]:
    """Runs jobs, as many at once as the cluster has cores and GPUs for.

    Args:
        options: Those of `pianolm.config.sweeps.RayLauncherConfig`.
        job_overrides: The overrides of each job.
        first: Number of the first job.
        job: What Hydra gives.

    Raises:
        UserError: Ray is not installed, no cluster answers, or no machine has the cores that a job asks for.
    """
    setup_globals()
    sweep = SweepCallback.current
    assert sweep is not None, "the sweep has started"
    cpus = _connect(options["address"], options["num_cpus"], len(job_overrides))
    sweep.share(Share.of_cores(cpus))
    import ray

    more: Any = OmegaConf.to_container(OmegaConf.create(options["options"]))
    remote = ray.remote(_execute).options(**{"num_cpus": cpus, "num_gpus": options["num_gpus"], **more})
    state, here = Singleton.get_state(), os.getcwd()
    running = [
        remote.remote(number, list(words), job, state, here)
        for number, words in enumerate(job_overrides, first)
    ]
    returned = []
    for number, (words, reference) in enumerate(zip(job_overrides, running, strict=True), first):
        try:
            returned.append(ray.get(reference))
        except ray.exceptions.RayError as error:  # its machine is gone or was out of memory, several times
            sweep.lost(number, words, f"lost by Ray ({type(error).__name__}): {error}")
            returned.append(
                JobReturn(overrides=words, status=JobStatus.COMPLETED, _return_value=float("nan"))
            )
    return returned


def _connect(address: str | None, cpus: int | None, jobs: int) -> int:
    """Connects to Ray, or starts it on this machine; returns the cores of a job."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else lines that several jobs print are left out
    if len(tempfile.gettempdir()) > _LONGEST_TEMPORARY and _SHORT_TEMPORARY.is_dir():
        os.environ.setdefault("RAY_TMPDIR", str(_SHORT_TEMPORARY))
    try:
        import ray
    except ImportError:
        raise UserError(
            "hydra/launcher=ray: ray is not installed; pip install '.[ray]' in the checkout"
        ) from None
    if not ray.is_initialized():
        own = {"num_cpus": cores(), "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
        try:
            _try_to_reach(address)
            ray.init(address or "local", logging_level="WARNING", **({} if address else own))
        except Exception as error:  # Ray raises that, too
            reason = " ".join(str(error).split())
            if address is None:
                raise UserError(f"hydra/launcher=ray: Ray did not start on this machine: {reason}") from error
            raise UserError(
                f"hydra.launcher.address={address}: no cluster of Ray answers ({reason}); start one by `ray start "
                "--head`, or leave the address out for one on this machine"
            ) from error
    STOP.install_again()  # Ray has set handlers of its own
    there = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if cpus is not None and cpus > max(there):
        raise UserError(
            f"hydra.launcher.num_cpus={cpus} found, but no machine of the cluster has more than {max(there)}"
        )
    return cpus or cores_of_a_job(there, jobs)


def _try_to_reach(address: str | None) -> None:
    """Raises `OSError` at once where nothing answers at HOST:PORT; Ray tries for a minute."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SEC).close()


def cores_of_a_job(cores_of_machines: Sequence[int], jobs: int) -> int:
    """The most cores with which all jobs run at once; 1 where there are more jobs than cores."""
    for count in range(max(cores_of_machines), 1, -1):
        if sum(there // count for there in cores_of_machines) >= jobs:
            return count
    return 1


def _execute(number: int, overrides: list[str], job: Job, state: dict[Any, Any], directory: str) -> JobReturn:
    """Runs a job in a worker process of Ray, in the directory in which the sweep was started."""
    os.chdir(directory)
    context, config, task = job
    setup_globals()
    Singleton.set_state(state)
    composed = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = f"{composed.hydra.job.name}_{number}"
        composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
