"""Kills the tiny chain at random moments; the same command afterwards must end as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from commands import Command
from damage import other_files

from pianolm.artifacts import problem_of, read_record

TRIES = 4
"""Further moments drawn where a command ended before its signal."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_STEPS = 30
_TRAINING = (
    "stage=base",
    f"base.trainer.max_steps={_STEPS}",
    "base.trainer.val_check_interval=7",
    "callbacks.checkpoint.every_n_steps=5",
)


@dataclass(frozen=True)
class Phase:
    """What is killed: the time between two lines of a command.

    Attributes:
        stage: The stage whose artifact is compared.
        overrides: The command.
        begins: Pattern of the line with which it begins.
        ends: Pattern of the line with which it ends.
    """

    stage: str
    overrides: tuple[str, ...]
    begins: str
    ends: str


PHASES = {
    "prepare": Phase(
        "prepare", ("stage=prepare", "data.pieces=24", "data.seed=5"), "^prepare: runs", "^prepare: built"
    ),
    "tokenize": Phase(
        "tokenize",
        ("stage=tokenize", "tokenizer=base", "tokenizer.tempo=log50_tuned"),
        "^tokenize: runs",
        "^tokenize: built",
    ),
    "training": Phase("base", _TRAINING, "^base: runs", rf"^  step {_STEPS}/{_STEPS}  val"),
    "publishing": Phase("base", _TRAINING, rf"^  step {_STEPS}/{_STEPS}  val", "^base: built"),
}


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        phase: Key of `PHASES`.
        signum: SIGKILL or SIGTERM.
        after_sec: Seconds after the beginning of the phase.
        said: The last line that was printed.
        problem: What was wrong; empty if nothing was.
    """

    phase: str
    signum: str
    after_sec: float
    said: str
    problem: str


def kill_all(upstream: Path, scratch: Path, kills: int, seed: int) -> Iterator[Kill]:
    """Kills every phase with both signals, `kills` times each, and compares the artifacts after the last run.

    Args:
        upstream: A directory with the artifacts that the phases need.
        scratch: Where the runs go.
        kills: Kills of each phase and signal, of one run after the other.
        seed: Determines the moments, as fractions of the phase's duration.
    """
    rng = np.random.default_rng(seed)
    whole: dict[tuple[str, ...], tuple[Command, Path]] = {}
    for name, phase in PHASES.items():
        if phase.overrides not in whole:
            root = _copied(upstream, scratch / f"whole_{name}")
            command = Command(root, phase.overrides)
            assert command.finish() == 0, command.text
            whole[phase.overrides] = command, _artifact(command)
        command, expected = whole[phase.overrides]
        begin, end = command.wait_for(phase.begins), command.wait_for(phase.ends)
        assert begin is not None, command.text
        assert end is not None, command.text
        for signum in SIGNALS:
            root = _copied(upstream, scratch / f"{name}_{signum.name}")
            found = [_kill(root, name, signum, rng, end - begin) for _ in range(kills)]
            last = Command(root, phase.overrides)
            problem = _final_problem(last, expected, root)
            yield from found[:-1]
            yield Kill(**{**vars(found[-1]), "problem": found[-1].problem or problem})


def _kill(root: Path, name: str, signum: signal.Signals, rng: np.random.Generator, duration: float) -> Kill:
    phase = PHASES[name]
    for attempt in range(TRIES):
        command = Command(root, phase.overrides)
        begun = command.wait_for(phase.begins)
        after = float(rng.uniform(0, duration)) / 2**attempt
        if begun is not None:
            with suppress(subprocess.TimeoutExpired):
                command.process.wait(after)
            if (code := command.end(signum)) is not None:
                said, problem = command.lines[-1][1], _kill_problem(command, signum, code)
                return Kill(name, signum.name, round(after, 2), said.replace(str(root), "RUN"), problem)
        assert command.finish() == 0, command.text
        shutil.rmtree(_artifact(command))  # it had ended before; once more, and sooner
    return Kill(name, signum.name, 0.0, "", f"it ended {TRIES} times before its signal")


def _kill_problem(command: Command, signum: signal.Signals, code: int) -> str:
    if strays := command.strays():
        return f"children run on: {strays}"
    if "Traceback" in command.text:
        return f"a traceback: {command.text[-400:]}"
    if command.lines[-1][1].endswith("metrics.json"):
        return ""  # it had done everything
    expected = 143 if signum == signal.SIGTERM else -signal.SIGKILL
    if code != expected:
        return f"exit code {code}, expected {expected}: {command.text[-400:]}"
    if signum == signal.SIGTERM and "SIGTERM" not in command.lines[-1][1]:
        return f"nothing is said: {command.lines[-1][1]}"
    return ""


def _final_problem(command: Command, expected: Path, root: Path) -> str:
    if command.finish() != 0 or "Traceback" in command.text:
        return f"the same command fails: {command.text[-400:]}"
    found = _artifact(command)
    if problem := problem_of(found, hashes=True):
        return f"the artifact is not whole: {problem}"
    records = [read_record(path) or {} for path in (expected, found)]
    if other := other_files(*records):
        return f"other files than those of an unbroken run: {other}"
    values = [_values(record["metrics"]) for record in records]
    if values[0] != values[1]:
        return f"other metrics: {values[1]}, expected {values[0]}"
    left = [path.name for path in (root / "artifacts").rglob("*.partial")]
    return f"left behind: {left}" if left else ""


def _values(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics that do not depend on the machine or on where a run was broken off."""
    return {
        key: value
        for key, value in metrics.items()
        if key.startswith("val/") or key in ("tokens", "notes", "cells")
    }


def _copied(upstream: Path, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(upstream / "artifacts", root / "artifacts")
    return root


def _artifact(command: Command) -> Path:
    """The artifact that a finished command built or reused."""
    for _, line in reversed(command.lines):
        for word in (": built ", ": reuses "):
            if word in line:
                return Path(line.partition(word)[2].partition(" in ")[0])
    raise AssertionError(command.text)
