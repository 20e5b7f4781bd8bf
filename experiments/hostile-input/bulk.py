"""All mutants at once: stage `prepare` on their folder must account for every file, as reading them one by one did."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reading import Outcome

_PATIENCE_SEC = 7200.0


def prepare(folder: Path, outcomes: Mapping[str, Outcome], scratch: Path, workers: int) -> dict[str, Any]:
    """Runs stage `prepare` on a folder of files that were read one by one.

    Args:
        folder: The folder.
        outcomes: What became of each file, by its name.
        scratch: Where artifacts go.
        workers: Processes.

    Returns:
        Counts: `files`, `used`, `rejected`, `unaccounted`, `disagreements` (other than read one by one), `tracebacks`,
        `seconds`, and `problem` with the first of them.
    """
    settings = (
        "stage=prepare",
        "data=folder",
        f"data.root={folder}",
        f"compute.workers={workers}",
        "logger=csv",
    )
    paths = [f"paths.{name}={scratch}/{name}" for name in ("artifacts", "work", "outputs")]
    done = subprocess.run(
        [sys.executable, "-m", "pianolm.run", *settings, *paths],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_SEC,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    text = done.stdout + done.stderr
    found = sorted((scratch / "artifacts" / "prepare").glob("[!.]*/rejects.csv"))
    problems = [] if done.returncode == 0 and found else [f"exit code {done.returncode}: {text[-500:]}"]
    used, rejected = (_used(found[0].parent), _rejected(found[0])) if found else ({}, {})
    lost = sorted(outcomes.keys() - used.keys() - rejected.keys())
    other = [name for name, outcome in outcomes.items() if not _agrees(name, outcome, used, rejected)]
    problems += [f"not accounted for: {lost[0]}"] if lost else []
    problems += [f"other than read alone: {other[0]}"] if other else []
    return {
        "files": len(outcomes),
        "used": len(used),
        "rejected": len(rejected),
        "unaccounted": len(lost),
        "disagreements": len(other),
        "tracebacks": text.count("Traceback"),
        "problem": problems[0] if problems else "",
    }


def _agrees(name: str, outcome: Outcome, used: Mapping[str, int], rejected: Mapping[str, str]) -> bool:
    if outcome.reason:
        return name in rejected
    return used.get(name) == outcome.notes or bool(outcome.problem)


def _used(artifact: Path) -> dict[str, int]:
    """Notes of the pieces by the names of their files."""
    with (artifact / "pieces.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: int(row["notes"]) for row in csv.DictReader(file)}


def _rejected(table: Path) -> dict[str, str]:
    with table.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}
