"""Gathers the sweeps of run.sh: results.jsonl, metrics.json, sweep.png and the tables of README.md.

python report.py RUNS OUT    a folder with joblib/sweep, ray/sweep and plot/
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

from experiments.results import Row, publish, table
from pianolm.report.sweep_results import JobResult, read_results, swept_options

LAUNCHERS = ("joblib", "ray")
METRICS = ("val/loss", "val/bits_per_note", "parameters")
UPSTREAM = ("prepare", "codebook", "tokenize")


def read(launcher: str, results: list[JobResult]) -> list[Row]:
    """A row for each job, and one with how often each upstream artifact was built."""
    options = swept_options(results)
    rows = []
    logs = ""
    for place, one in enumerate(results):
        artifact = Path(json.loads((Path(one.directory) / "metrics.json").read_text("utf-8"))["artifact"])
        weights = hashlib.sha256((artifact / "model.safetensors").read_bytes()).hexdigest()
        row = {key: values[place] for key, values in options.items()}
        row |= {name: one.metrics[name] for name in METRICS}
        rows.append(
            {"launcher": launcher, "job": one.job, "state": one.state, **row, "weights_sha256": weights}
        )
        logs += Path(one.log).read_text("utf-8")
    built = {stage: len(re.findall(rf"^{stage}: built ", logs, re.MULTILINE)) for stage in UPSTREAM}
    return [*rows, {"launcher": launcher, "built": built}]


def jobs(rows: list[Row], launcher: str) -> list[Row]:
    return [row for row in rows if row["launcher"] == launcher and "job" in row]


def equal(one: Row, other: Row) -> bool:
    """Whether two jobs agree bit by bit in options, metrics and weights."""
    return {**one, "launcher": ""} == {**other, "launcher": ""}


def headlines(rows: list[Row]) -> dict[str, float]:
    first, second = (jobs(rows, launcher) for launcher in LAUNCHERS)
    built = [row["built"] for row in rows if "built" in row]
    return {
        "jobs": len(first),
        "identical": sum(equal(a, b) for a, b in zip(first, second, strict=True)),
        "least val/loss": min(row["val/loss"] for row in first),
        "most builds of an upstream artifact": max(count for counts in built for count in counts.values()),
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    first, second = (jobs(rows, launcher) for launcher in LAUNCHERS)
    head = [
        "`optimizer.lr`",
        "`model.width`",
        "parameters",
        "val/loss, joblib",
        "val/loss, Ray",
        "bits per note",
        "weights",
    ]
    lines = [
        [
            a["optimizer.lr"],
            a["model.width"],
            f"{a['parameters']:,}",
            repr(a["val/loss"]),
            repr(b["val/loss"]),
            f"{a['val/bits_per_note']:.2f}",
            "identical" if equal(a, b) else "different",
        ]
        for a, b in zip(first, second, strict=True)
    ]
    return {"results": table(head, lines)}


if __name__ == "__main__":
    runs, out = map(Path, sys.argv[1:])
    found = [row for launcher in LAUNCHERS for row in read(launcher, read_results(runs / launcher / "sweep"))]
    shutil.copyfile(runs / "plot" / "sweep.png", out / "sweep.png")
    publish(out, found, headlines(found), tables(found))
