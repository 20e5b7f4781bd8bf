"""`hydra/launcher=ray`: jobs of a sweep on Ray, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Runs each job as a task of Ray; the options are those of `pianolm.config.sweeps.RayLauncherConfig`."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs jobs, as many at once as the cluster has cores and GPUs for."""
        from pianolm.pipeline.ray_jobs import launch

        return launch(
            self._options, job_overrides, initial_job_idx, (self._context, self._config, self._task)
        )
