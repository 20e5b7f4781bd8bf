"""Options of `hydra/launcher=ray` and `hydra/sweeper=optuna`, whose classes lie in `hydra_plugins/pianolm_sweeps/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pianolm.config.option import option

_PACKAGE = "hydra_plugins.pianolm_sweeps"


@dataclass
class RayLauncherConfig:
    """Runs jobs on Ray."""

    _target_: str = field(default=f"{_PACKAGE}.ray_launcher.RayLauncher")
    address: str | None = option(
        None, "Cluster that this machine is part of: auto or HOST:PORT; null: one of its own on this machine."
    )
    num_cpus: int | None = option(
        None, "Cores of a job; null: as many as let all jobs run at once, at least one.", at_least=1
    )
    num_gpus: float = option(0.0, "GPUs of a job, which no other job uses meanwhile.", at_least=0)
    options: dict[str, Any] = option(
        {}, "Further arguments of Ray's RemoteFunction.options, such as resources."
    )


@dataclass
class OptunaSweeperConfig:
    """Chooses values by Optuna."""

    _target_: str = field(default=f"{_PACKAGE}.optuna_sweeper.OptunaSweeper")
    n_trials: int = option(20, "Trials in all, those that failed included.", at_least=1)
    n_jobs: int = option(1, "Trials that are chosen together and given to the launcher at once.", at_least=1)
    sampler: str = option(
        "tpe", "tpe: tree-structured Parzen estimator; random: independent values.", choices=("tpe", "random")
    )
    seed: int = option(0, "Seed of the sampler: the same values are tried again.", at_least=0)
    params: dict[str, str] | None = option(
        None, "Search space by option, such as {optimizer.lr: 'tag(log, interval(1e-4, 1e-2))'}."
    )
