"""How the jobs of a sweep share the cores of a machine, instead of each taking all of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig

from pianolm.training.hardware import cores, resolve_hardware, trainer_arguments

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Share:
    """What a job may use of a machine.

    Attributes:
        cores: Cores; None for all.
        threads: Threads of its numerical libraries; None for one on each core.
    """

    cores: int | None = None
    threads: int | None = None

    @staticmethod
    def of_cores(count: int) -> Share:
        """A number of cores; a user's OMP_NUM_THREADS remains the most threads."""
        most = os.environ.get(_THREADS[0], "")
        return Share(count, min(count, int(most)) if most.isdigit() and int(most) > 0 else count)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a job's process; launchers set others for theirs."""
        return {} if self.threads is None else dict.fromkeys(_THREADS, str(self.threads))

    def configured(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """A job's configuration in which `compute.threads` and `compute.workers` are set, where the user has not."""
        if self.cores is None or self.threads is None:
            return dict(cfg)
        processes = resolve_hardware(trainer_arguments(cfg, cfg["stage"]["name"])).devices
        compute = dict(cfg["compute"])
        if compute["threads"] is None:
            compute["threads"] = max(self.threads // processes, 1)
        if compute["workers"] is None:
            compute["workers"] = self.cores
        return {**cfg, "compute": compute}


def share_of(config: DictConfig) -> Share:
    """The share of each job, as far as the launcher is known to run several on this machine at once.

    `hydra/launcher=ray` settles it for itself, and SLURM's jobs have cores of their own.
    """
    at_once = config.hydra.launcher.get("n_jobs")  # of joblib
    if at_once is None:
        return Share()
    at_once = at_once if at_once > 0 else max(cores() + 1 + at_once, 1)
    at_once = min(at_once, jobs_at_once(config))
    return Share.of_cores(max(cores() // at_once, 1)) if at_once > 1 else Share()


def jobs_at_once(config: DictConfig) -> int:
    """The most jobs that the sweeper gives to the launcher together."""
    sweeper = config.hydra.sweeper
    if sweeper.get("n_jobs"):
        return int(sweeper.n_jobs)  # trials of Optuna
    words = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    words += config.hydra.overrides.task
    overrides = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(words)}
    swept = [one for one in overrides.values() if one.is_sweep_override() and one.is_discrete_sweep()]
    if any(one.value_type == ValueType.GLOB_CHOICE_SWEEP for one in swept):
        return cores()  # as many as there are files, which only Hydra knows
    count = math.prod(sum(1 for _ in one.sweep_string_iterator()) for one in swept)
    return min(count, sweeper.get("max_batch_size") or count)
