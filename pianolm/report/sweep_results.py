"""Results of a sweep: one file for each job, the table on the terminal, and `sweep.csv`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pianolm.csv_file import write_csv

JOBS, CSV, STUDY = ".jobs", "sweep.csv", "optuna.jsonl"
"""Names in the directory of a sweep: the folder of the jobs' results, the table, and the journal of Optuna's study."""
_MOST_UNNAMED = 3
"""Metrics in the table of a stage that names none as headlines."""
_NO_HEADLINES = ("seconds", "resumed_from_step")


@dataclass(frozen=True)
class JobResult:
    """A row of the table.

    Attributes:
        job: Number of the job.
        overrides: Its overrides, as `key=value`.
        state: done, failed, stopped (by a signal) or not run.
        directory: Its run directory.
        metric: Name of the stage's validation metric, which is least for the best job; empty where it has none.
        headlines: Names of further metrics that the table shows.
        metrics: All its metrics that are numbers; empty unless it is done.
        error: Why it failed, empty where it did not.
        log: What it printed, empty where it did not run.
        settings: Fingerprint of its configuration.
    """

    job: int
    overrides: list[str]
    state: str
    directory: str
    metric: str = ""
    headlines: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    log: str = ""
    settings: str = ""

    @property
    def value(self) -> float | None:
        """The validation metric, None where there is none or it is not finite."""
        value = self.metrics.get(self.metric)
        return value if value is not None and math.isfinite(value) else None


def write_result(path: Path, result: JobResult) -> None:
    """Writes a result in one step, so that a reader never sees half of it."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(result)), "utf-8")
    partial.replace(path)


def read_result(path: Path) -> JobResult:
    """The result in a file."""
    return JobResult(**json.loads(path.read_text("utf-8")))


def read_results(sweep: Path) -> list[JobResult]:
    """The results of the jobs that ended in the sweep of a directory, by number; none where it holds no sweep."""
    found = [read_result(path) for path in (sweep / JOBS).glob("[0-9]*.json")]
    return sorted(found, key=lambda result: result.job)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a `metrics.json` that are numbers."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def swept_options(results: Sequence[JobResult]) -> dict[str, list[str]]:
    """The options in which jobs differ, with their value in each job; empty where a job does not set one."""
    settings = [dict(word.partition("=")[::2] for word in one.overrides) for one in results]
    values = {
        key: [one.get(key, "") for one in settings] for key in dict.fromkeys(k for s in settings for k in s)
    }
    return {key: found for key, found in values.items() if len(results) == 1 or len(set(found)) > 1}


def ranked(results: Sequence[JobResult]) -> list[JobResult]:
    """The jobs with a validation metric, the best first."""
    valued = [(one.value, one.job, one) for one in results if one.value is not None]
    return [one for _, _, one in sorted(valued, key=lambda entry: entry[:2])]


def label(results: Sequence[JobResult], one: JobResult) -> str:
    """Number of a job and the values that distinguish it from the other ones."""
    place = [result.job for result in results].index(one.job)
    words = [f"{key}={values[place]}" for key, values in swept_options(results).items() if values[place]]
    return f"job {one.job}" + (f" ({' '.join(words)})" if words else "")


def _shown_metrics(results: Sequence[JobResult]) -> list[str]:
    """Names of the metrics in the table, the validation metric first."""
    names = [name for one in results for name in (one.metric, *one.headlines) if name]
    if not names:
        found = dict.fromkeys(name for one in results for name in one.metrics if name not in _NO_HEADLINES)
        names = list(found)[:_MOST_UNNAMED]
    return list(dict.fromkeys(names))


def table(results: Sequence[JobResult]) -> list[str]:
    """Lines for the terminal: a table with a row for each job, the best job, the failed ones with reason and log."""
    swept, names = swept_options(results), _shown_metrics(results)
    rows = [["job", *swept, "state", *names, "seconds", "directory"]]
    for place, one in enumerate(results):
        figures = [_short(one.metrics.get(name)) for name in (*names, "seconds")]
        options = [values[place] for values in swept.values()]
        rows.append([str(one.job), *options, one.state, *figures, _beside(one.directory)])
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    texts = 1 + len(
        swept
    )  # columns from the first on that hold words rather than figures, but for the number
    aligned = ["rjust", *["ljust"] * texts, *["rjust"] * (len(names) + 1), "ljust"]
    lines = [
        "  ".join(
            getattr(cell, how)(width) for cell, how, width in zip(row, aligned, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    if best := ranked(results):
        lines.append(f"best: {label(results, best[0])}, {best[0].metric} {_short(best[0].value)}")
    for one in results:
        if one.state == "failed":
            lines.append(f"failed: {label(results, one)}: {' '.join(one.error.split())}; log: {one.log}")
    return lines


def _beside(directory: str) -> str:
    """A directory relative to the current one if it lies below it."""
    relative = os.path.relpath(directory)
    return directory if relative.startswith("..") else relative


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def write_results(path: Path, results: Sequence[JobResult]) -> None:
    """Writes a row for each job: number, swept options, state, all metrics, run directory, log, error."""
    swept = swept_options(results)
    names = list(
        dict.fromkeys([*_shown_metrics(results), *(name for one in results for name in one.metrics)])
    )
    rows = []
    for place, one in enumerate(results):
        options = [values[place] for values in swept.values()]
        figures = [one.metrics.get(name, "") for name in names]
        rows.append([one.job, *options, one.state, *figures, one.directory, one.log, one.error])
    write_csv(path, ["job", *swept, "state", *names, "directory", "log", "error"], rows)
