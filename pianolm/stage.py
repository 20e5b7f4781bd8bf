"""What a stage is: what it needs, what determines its result, and the function that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]
"""A composed configuration, resolved to plain containers."""

Metrics = dict[str, float | int | str]
"""What a stage's `run` returns; the keys are documented in docs/metrics.md."""


@dataclass(frozen=True)
class StageContext:
    """Everything that a stage's `run` may use.

    Attributes:
        cfg: The resolved configuration as plain containers.
        upstream: Artifact directories or given files by role: cells, codebook, velvq, tokens, base, model and so on.
        out: Empty directory to fill; it is published under the artifact's name when `run` returns.
        work: Unfinished training state of exactly this artifact; survives a crash, removed after publishing.
        run_dir: Directory of this run: logs, metrics.json, pictures.
        name: Name of the stage.
        fingerprint: Fingerprint of the artifact that is built, empty for stages that publish none.
        sweep: Name that the jobs of a sweep share, None outside a sweep.
    """

    cfg: Config
    upstream: Mapping[str, Path]
    out: Path
    work: Path
    run_dir: Path
    name: str
    fingerprint: str = ""
    sweep: str | None = None


@dataclass(frozen=True)
class Need:
    """An upstream artifact that a stage reads.

    Attributes:
        stage: The stage that makes it; empty where it can only be given.
        given: The key of `upstream` whose path takes its place; None where nothing may.
        mode: The tokenizer mode with which it is made; None for that of the configuration.
    """

    stage: str
    given: str | None = None
    mode: str | None = None


def _nothing(cfg: Config) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Stage:
    """One stage of the chain; `pianolm/stages/<name>.py` defines it as `STAGE`.

    Attributes:
        run: Runs the stage and returns its metrics. Modules that need torch are imported inside.
        needs: The upstream artifacts by role, for a configuration.
        settings: The part of a configuration that determines the result; JSON values only.
        version: Raised when the same settings give another result.
        sentence: What the stage does, shown by `--help`.
        objective: The metric that a sweep minimises; None where there is none.
        headlines: Further metrics in the table of a sweep.
        publishes: Whether the result is an artifact; else it lies in the run directory.
        trains: Whether it trains with Lightning, so that it may resume and use several processes.
        check: Raises `UserError` for what can be known before anything is built.
        check_processes: Raises `UserError` where a batch cannot be divided among this number of processes.
        licences: Reads the licences of what went into a published artifact of a stage that reads data; other artifacts
            have the licences of those they are made from.
        describe: Lines that `plan=true` prints for a stage that publishes nothing; None for one line with its name.
    """

    run: Callable[[StageContext], Metrics]
    sentence: str
    needs: Callable[[Config], Mapping[str, Need]] = field(default=_nothing)
    settings: Callable[[Config], Mapping[str, Any]] = field(default=_nothing)
    version: int = 1
    objective: str | None = None
    headlines: tuple[str, ...] = ()
    publishes: bool = True
    trains: bool = False
    check: Callable[[Config], None] | None = None
    check_processes: Callable[[Config, int], object] | None = None
    licences: Callable[[Path], list[str]] | None = None
    describe: Callable[[Config], list[str]] | None = None
