"""The command line: `python -m pianolm.run stage=… key=value …`.

Composes the configuration, plans the chain of artifacts, builds what is missing and runs the stage asked for.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pianolm.errors import UserError
from pianolm.pipeline.graph import Builder, Planner

OBJECTIVE = {
    "codebook": "codes_per_cell",
    "velvq": "val/velocity_mae",
    "tokenize": "tokens_per_note",
    "base": "val/loss",
    "finetune": "val/loss",
}
"""The metric that a sweep compares, by stage."""

_HERE = Path(__file__).resolve().parent
CONFIG_DIR = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""`conf/` of an installed wheel lies in the package, that of a checkout beside it."""

_FULL_ERROR = "HYDRA_FULL_ERROR"


def execute(cfg: dict[str, Any], run_dir: Path, sweep: str | None = None) -> dict[str, Any]:
    """Plans, builds and runs the stage of a resolved configuration.

    Args:
        cfg: Plain containers.
        run_dir: Where logs, pictures and `metrics.json` go.
        sweep: Name that the jobs of one sweep share.

    Returns:
        The metrics, also written to `run_dir/metrics.json`; empty with `plan=true`.
    """
    stage = cfg["stage"]["name"]
    builder = Builder(cfg, run_dir, say=_say, extra={"sweep": sweep})
    node = Planner(cfg).node(stage, "base" if stage == "base" else None)
    if cfg["plan"]:
        for line in builder.describe(node):
            _say(line)
        return {}
    run_dir.mkdir(parents=True, exist_ok=True)
    artifact, found = builder.build(node, force=bool(cfg["force"]))
    metrics = {"stage": stage, "artifact": str(artifact), **found}
    path = run_dir / "metrics.json"
    path.write_text(json.dumps(_finite(metrics), indent=2) + "\n")
    _say(str(path))
    return metrics


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a value that is not finite becomes null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}


def _say(line: str) -> None:
    print(line, flush=True)


class _RefusedError(BaseException):
    """Carries a user's error past Hydra, which would print all overrides before the one sentence."""


def job(cfg: DictConfig) -> float | None:
    """One Hydra job; under `-m` it runs in a process of its own."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]  # a mapping at the root
    if hydra_cfg.mode == RunMode.MULTIRUN:
        metrics = _in_own_process(plain, run_dir, Path(hydra_cfg.sweep.dir).name)
    else:
        try:
            metrics = execute(plain, run_dir)
        except UserError as error:
            raise _RefusedError(error) from error
    value = metrics.get(OBJECTIVE.get(plain["stage"]["name"], ""))
    return None if value is None else float(value)


def _in_own_process(cfg: dict[str, Any], run_dir: Path, sweep: str) -> dict[str, Any]:
    """Runs a job of a sweep by itself: memory, threads and W&B runs of one job never reach the next."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "job.json"
    path.write_text(json.dumps({"cfg": cfg, "run_dir": str(run_dir), "sweep": sweep}))
    done = subprocess.run([sys.executable, "-m", "pianolm.run", f"--job={path}"], check=False)
    path.unlink()
    if done.returncode:
        raise UserError(f"{run_dir}: this job of the sweep failed; its error stands above")
    written = run_dir / "metrics.json"
    metrics: dict[str, Any] = json.loads(written.read_text()) if written.is_file() else {}
    return metrics


def cli() -> None:
    """Entry point: user errors end in one sentence and exit code 1, with a traceback under HYDRA_FULL_ERROR=1."""
    full = os.environ.get(_FULL_ERROR) == "1"
    os.environ[_FULL_ERROR] = "1"  # lets errors reach this function instead of Hydra's own printer
    try:
        if len(sys.argv) == 2 and sys.argv[1].startswith("--job="):
            content = json.loads(Path(sys.argv[1].removeprefix("--job=")).read_text())
            execute(content["cfg"], Path(content["run_dir"]), content["sweep"])
        else:
            hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")(job)()
    except (UserError, _RefusedError, HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        cause = error.__cause__ if isinstance(error, _RefusedError) and error.__cause__ else error
        print(f"pianolm: {explain(cause)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        if full:
            raise
        print("pianolm: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def explain(error: BaseException) -> str:
    """A configuration error in one paragraph that lists what exists."""
    if isinstance(error, UserError):
        return str(error)
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = next((str(e) for e in chain if str(e)), type(error).__name__)
    unknown = next((m for e in chain if (m := re.search(r"Key '([^']+)' is not in struct", str(e)))), None)
    full_key = next((m for e in chain if (m := re.search(r"full_key: (\S+)", str(e)))), None)
    group = next((m for e in chain if (m := re.search(r"Could not override '([^'@]+)", str(e)))), None)
    if unknown:
        return _unknown_key(full_key.group(1) if full_key else unknown.group(1))
    if group:
        return _unknown_key(group.group(1))
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return "\n  ".join(line for line in lines if "Config search path" not in line and "provider=" not in line)


def _unknown_key(key: str) -> str:
    """Says which keys exist where an unknown one was given."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = OmegaConf.to_container(compose("config"), resolve=False)
    parent, _, name = key.rpartition(".")
    at: Any = cfg
    for part in parent.split(".") if parent else []:
        at = at.get(part, {}) if isinstance(at, dict) else {}
    known = sorted(map(str, at)) if isinstance(at, dict) else []
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    where = f"{parent} has" if parent and known else "there are"
    return f"no option {key!r}: {where} {', '.join(known) or 'none'}{hint}"


if __name__ == "__main__":
    cli()
