"""`hydra/sweeper=optuna`: values of a sweep chosen by Optuna."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Runs the trials of a study; the options are those of `pianolm.config.sweeps.OptunaSweeperConfig`."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the trials that the study lacks."""
        from pianolm.pipeline.optuna_study import run_trials

        assert self.config is not None, "set up"
        run_trials(self._options, arguments, self.config.stage.name, self._launch)

    def _launch(self, batch: list[list[str]], first: int) -> None:
        assert self.launcher is not None, "set up"
        self.validate_batch_is_legal(batch)
        self.launcher.launch(batch, initial_job_idx=first)
