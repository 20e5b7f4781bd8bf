"""The command line: `python -m pianolm.run stage=… key=value …`.

Checks the overrides, composes the configuration, plans the chain of artifacts, builds what is missing and runs the
stage asked for.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pianolm.signals import end_at_signals

    end_at_signals()  # the imports below take a second

import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import pianolm
from pianolm.child_process import end_with_parent, kill_workers
from pianolm.config.check import (
    choices,
    config_problems,
    experiment_choices,
    open_keys,
    override_problems,
    parse,
)
from pianolm.config.root import register
from pianolm.errors import UserError
from pianolm.file_errors import unwritable_files_told
from pianolm.pipeline.graph import Builder, Planner
from pianolm.pipeline.launch import leading
from pianolm.pipeline.model_choice import choose_models
from pianolm.pipeline.run_log import LOG, RUN_LOG, link_latest
from pianolm.pipeline.slurm import requeue
from pianolm.pipeline.sweep import ERROR, TRACEBACK, RefusedError, Sweep, SweepCallback
from pianolm.report.sweep_results import CSV, STUDY
from pianolm.signals import REQUEUE, STOP, StoppedBySignalError
from pianolm.stages import find_stage
from pianolm.training.hardware import find_launcher

_HERE = Path(__file__).resolve().parent
CONFIG_DIR = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""`conf/` of an installed wheel lies in the package, that of a checkout beside it."""

_FULL_ERROR = "HYDRA_FULL_ERROR"

register()


def execute(
    cfg: dict[str, Any], run_dir: Path, sweep: str | None = None, overrides: Sequence[str] | None = None
) -> dict[str, Any]:
    """Plans, builds and runs the stage of a resolved configuration.

    Args:
        cfg: Plain containers.
        run_dir: Directory for logs, pictures and `metrics.json`.
        sweep: Name that the jobs of one sweep share.
        overrides: What the user gave, as `key=value`; None where that is unknown.

    Returns:
        The metrics, also written to `run_dir/metrics.json`; empty with `plan=true`.

    Raises:
        UserError: Options have wrong values or do not fit together, or the stage fails for a reason that the user can
            mend.
    """
    if problems := config_problems(cfg):
        raise UserError("\n".join(problems))
    cfg = choose_models(cfg, overrides, _say)
    stage = cfg["stage"]["name"]
    builder = Builder(cfg, run_dir, say=_say, sweep=sweep)
    node = Planner(cfg).plan()
    if cfg["plan"]:
        for line in builder.describe(node):
            _say(line)
        return {}
    builder.require_hardware(node)
    with unwritable_files_told(run_dir, lambda: "artifacts that were built before are complete"):
        run_dir.mkdir(parents=True, exist_ok=True)
        artifact, found = builder.build(node, force=bool(cfg["force"]))
        metrics = {"stage": stage, "artifact": str(artifact), **found}
        upstream = {role: needed.fingerprint for role, needed in node.upstream.items()}
        path = run_dir / "metrics.json"
        path.write_text(json.dumps({**_finite(metrics), "upstream": upstream}, indent=2) + "\n")
        builder.store.note_run(path)
    _say(str(path))
    return metrics


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a value that is not finite becomes null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}


def _say(line: str) -> None:
    print(line, flush=True)


def job(cfg: DictConfig) -> float | None:
    """One Hydra job; under `-m` it runs in a process of its own. Returns the metric that a sweep minimises."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]  # a mapping at the root
    objective = find_stage(plain["stage"]["name"]).objective
    if hydra_cfg.mode == RunMode.MULTIRUN:
        sweep = Sweep(Path(hydra_cfg.sweep.dir))
        return sweep.run_job(
            int(hydra_cfg.job.num), list(hydra_cfg.overrides.task), plain, run_dir, objective
        )
    LOG.open(run_dir / RUN_LOG)
    if (
        not plain["plan"] and plain["stage"]["name"] != "plot"
    ):  # which draws the run that outputs/latest names
        link_latest(Path(plain["paths"]["outputs"]), run_dir)
    try:
        metrics = execute(plain, run_dir, overrides=list(hydra_cfg.overrides.task))
    except UserError as error:
        raise RefusedError(error) from error
    value = metrics.get(objective) if objective is not None else None
    return None if value is None else float(value)


def _run_sweep_job(path: Path) -> None:
    """Runs a job that `Sweep.run_job` started in this process."""
    content = json.loads(path.read_text())
    end_with_parent(content["parent"])
    run_dir = Path(content["run_dir"])
    LOG.open(run_dir / RUN_LOG)
    try:
        execute(content["cfg"], run_dir, content["sweep"], content["overrides"])
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        (run_dir / ERROR).write_text(f"{kind}{explain(error)}", "utf-8")
        raise


def _end_sweep(sweep: Sweep) -> None:
    """Prints the table of a sweep.

    Raises:
        StoppedBySignalError: A signal ended it.
        SystemExit: A job failed.
    """
    lines, failed = sweep.report(failed_are_final=(sweep.directory / STUDY).exists())
    for line in lines:
        _say(line)
    if lines:
        _say(str(sweep.directory / CSV))
    if STOP.received:
        name = signal.Signals(STOP.received).name
        told = f"the sweep was ended by {name}; the same command keeps what is done and goes on with the rest"
        raise StoppedBySignalError(STOP.received, told)
    if failed:
        sys.exit(1)


def checked(arguments: list[str]) -> list[str]:
    """A command line whose overrides are checked, in the form that Hydra takes.

    Args:
        arguments: The command line without the program's name.

    Raises:
        UserError: Overrides do not fit; the message has a line for each.
    """
    found = get_args_parser().parse_args(arguments)
    directories = [CONFIG_DIR, *([Path(found.config_dir)] if found.config_dir else [])]
    if found.multirun and (launcher := find_launcher()) is not None:
        raise UserError(
            f"-m with {launcher.name} found, which started {launcher.processes} processes for one training; leave out "
            "-m, or start the sweep alone, whose jobs may start processes of their own (hardware=ddp)"
        )
    overrides, problems = parse(found.overrides)
    groups = choices(directories)
    wrong = override_problems(overrides, groups, experiment_choices(overrides, directories))
    problems += wrong.values()
    if problems and not found.multirun:
        lines = {str(o.input_line): o.key_or_group for o in overrides}
        unknown = {key for line, key in lines.items() if line in wrong and key in groups}
        fine = [line for line, key in lines.items() if line not in wrong and key.split(".")[0] not in unknown]
        problems += _composed_problems(fine, found.config_dir)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    words = dict(zip(found.overrides, open_keys(found.overrides), strict=True))
    return [words.get(argument, argument) for argument in arguments]


def _composed_problems(overrides: list[str], config_dir: str | None) -> list[str]:
    """Problems of the configuration that the overrides without problems of their own make."""
    from hydra import compose, initialize_config_dir

    extra = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = OmegaConf.to_container(compose("config", [*open_keys(overrides), *extra]), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        return [explain(error)]
    assert isinstance(cfg, dict)
    return config_problems({str(key): value for key, value in cfg.items()})


def cli() -> None:
    """Entry point: user errors end in one sentence each and exit code 1; HYDRA_FULL_ERROR=1 adds the traceback."""
    full = os.environ.get(_FULL_ERROR) == "1"
    os.environ[TRACEBACK] = "1" if full else "0"
    os.environ[_FULL_ERROR] = "1"  # errors reach this function instead of Hydra's own printer
    STOP.install()
    LOG.start()
    try:
        _main(sys.argv[1:])
    except (UserError, RefusedError, HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        cause = error.__cause__ if isinstance(error, RefusedError) and error.__cause__ else error
        for line in explain(cause).splitlines():
            print(line if line.startswith(" ") else f"pianolm: {line}", file=sys.stderr)
        sys.exit(1)
    except StoppedBySignalError as stop:
        kill_workers()  # else the interpreter waits for them before it ends
        told = (
            stop.sentence
            or f"ended by {stop.signal_name} while no stage ran; artifacts that were built are complete"
        )
        print(f"pianolm: {told}", file=sys.stderr)
        if stop.signum == REQUEUE and (answer := requeue()) is not None:
            print(f"pianolm: {answer}", file=sys.stderr)
        sys.exit(stop.exit_code)


def _main(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        print(f"pianolm {pianolm.__version__}")
    elif {"--help", "-h"} & set(arguments):
        from pianolm.config.help import help_text

        print(help_text(CONFIG_DIR))
    elif len(arguments) == 1 and arguments[0].startswith("--job="):
        _run_sweep_job(Path(arguments[0].removeprefix("--job=")))
    else:
        with leading() as leads:
            if leads:
                _run_with_hydra(arguments)


def _run_with_hydra(arguments: list[str]) -> None:
    sys.argv[1:] = checked(arguments)
    with unwritable_files_told(Path("outputs"), lambda: "nothing was built"):
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")(job)()
    if SweepCallback.current is not None:
        _end_sweep(SweepCallback.current)


def explain(error: BaseException) -> str:
    """The sentence of a user's error or of a configuration error that Hydra or OmegaConf raised."""
    if isinstance(error, UserError):
        return str(error)
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = next((str(e) for e in reversed(chain) if str(e)), type(error).__name__)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    hidden = (_FULL_ERROR, "Config search path", "provider=", "reference_type=", "object_type=")
    return "\n  ".join(line for line in lines if not any(word in line for word in hidden))


if __name__ == "__main__":
    from pianolm.run import cli as cli_of_module  # sweep jobs in other processes find its functions by name

    cli_of_module()
