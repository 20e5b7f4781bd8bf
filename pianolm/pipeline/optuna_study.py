"""A sweep whose values Optuna chooses (`hydra/sweeper=optuna`), by its ask and tell interface.

The published plugin, hydra-optuna-sweeper 1.3.0, pins Optuna below 3, whose storage fails on SQLAlchemy 2. A trial is
the job of the same number. The study is a journal in the sweep's directory: trials without a result are run again,
with their values, when the same command continues the sweep. Each trial's sampler has a seed of its own, so that
a sweep that was interrupted tries the same values as one that was not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from pianolm.errors import UserError
from pianolm.pipeline.sweep import Sweep, SweepCallback
from pianolm.report.sweep_results import STUDY
from pianolm.stages import find_stage, stage_names

if TYPE_CHECKING:
    import optuna

Launch = Callable[[list[list[str]], int], None]
"""Runs jobs with the given overrides; the second argument is the number of the first."""


def run_trials(options: Mapping[str, Any], arguments: Sequence[str], stage: str, launch: Launch) -> None:
    """Runs the trials that the study of the current sweep lacks, in batches.

    Args:
        options: Those of `pianolm.config.sweeps.OptunaSweeperConfig`.
        arguments: Overrides, the search space among them.
        stage: Name of the stage, whose metric is minimised.
        launch: Runs the jobs of a batch.

    Raises:
        UserError: Optuna is not installed, the stage has no metric, or nothing is to be searched.
    """
    _require_objective(stage)
    sweep = SweepCallback.current
    assert sweep is not None, "the sweep has started"
    words = [*(f"{key}={value}" for key, value in (options["params"] or {}).items()), *arguments]
    fixed, space = search_space(words)
    study = _open_study(sweep)
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            sweep.keep(trial.number)
    while batch := _next_batch(study, options, space):
        launch([_overrides(fixed, trial.params) for trial in batch], batch[0].number)
        if not _tell(study, sweep, [trial.number for trial in batch]):
            return  # a signal ended the sweep


def _require_objective(stage: str) -> None:
    if find_stage(stage).objective is None:
        have = ", ".join(name for name in stage_names() if find_stage(name).objective)
        raise UserError(
            f"hydra/sweeper=optuna: stage={stage} has no metric to minimise; those that have: {have}"
        )


def search_space(
    words: Sequence[str],
) -> tuple[dict[str, str], dict[str, optuna.distributions.BaseDistribution]]:
    """The values of a command line that are fixed, and the distributions of those to be searched, by key.

    Raises:
        UserError: Optuna is not installed, or nothing is to be searched.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(
            "hydra/sweeper=optuna: optuna is not installed; pip install '.[optuna]' in the checkout"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    overrides = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(list(words))}
    fixed = {
        key: one.get_value_element_as_str() for key, one in overrides.items() if not one.is_sweep_override()
    }
    space = {key: _distribution(one) for key, one in overrides.items() if one.is_sweep_override()}
    if not space:
        raise UserError(
            "hydra/sweeper=optuna: nothing to search found; give a range to some option, such as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))', or a list of choices"
        )
    return fixed, space


def _distribution(override: Override) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start or 0), float(value.end or 0), log=log)
    if isinstance(value, RangeSweep):
        start, stop, step = value.start, value.stop, value.step
        if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
            numbers = range(start, stop, step)
            return IntDistribution(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _overrides(fixed: Mapping[str, str], chosen: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in {**fixed, **chosen}.items()]


def _open_study(sweep: Sweep) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    sweep.directory.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(sweep.directory / STUDY)))
    return optuna.create_study(storage=storage, study_name="sweep", direction="minimize", load_if_exists=True)


def _next_batch(
    study: optuna.Study,
    options: Mapping[str, Any],
    space: Mapping[str, optuna.distributions.BaseDistribution],
) -> list[optuna.trial.FrozenTrial | optuna.trial.Trial]:
    """Trials to be run together: those left without a result, filled up with new ones."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    batch: list[Any] = []
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            if trial.params.keys() == space.keys():
                batch.append(trial)
            else:  # the sweep was killed while its values were chosen
                study.tell(trial.number, state=TrialState.FAIL)
    for number in range(len(trials), min(len(trials) + options["n_jobs"] - len(batch), options["n_trials"])):
        study.sampler = _sampler(options, number)
        batch.append(study.ask(dict(space)))
    return batch


def _sampler(options: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([options["seed"], number]).generate_state(1)[0])
    if options["sampler"] == "random":
        return RandomSampler(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an argument is experimental
        return TPESampler(seed=seed, constant_liar=options["n_jobs"] > 1)


def _tell(study: optuna.Study, sweep: Sweep, numbers: Sequence[int]) -> bool:
    """Tells the results of a batch up to the first job that was stopped or not run; returns whether there is none."""
    from optuna.trial import TrialState

    for number in numbers:
        result = sweep.result(number)
        if result is None or result.state in ("stopped", "not run"):
            return False
        if result.value is None:
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, result.value)
    return True
