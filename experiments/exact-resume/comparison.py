"""Compares what two runs published and logged, bit by bit."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from runs import CHECKPOINT_EVERY
from safetensors.numpy import load_file

NOT_COMPARED = re.compile(r"second|memory|resumed_from_step|epoch")
"""Metrics that depend on the machine or on where a run was interrupted."""


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Compares two artifacts file by file; yields a line for each file that differs."""
    names = [
        {path.relative_to(a).as_posix() for path in a.rglob("*") if path.is_file()} for a in (expected, found)
    ]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name}: only in the {'uninterrupted' if name in names[0] else 'killed'} run's artifact"
    for name in sorted(names[0] & names[1]):
        a, b = expected / name, found / name
        if name == "artifact.json":
            yield from _other_metrics(a, b)
        elif name.endswith(".ckpt"):
            yield from _other_states(a, b)
        elif name != "config.yaml" and a.read_bytes() != b.read_bytes():  # which holds the run's own paths
            how = _other_tensors(a, b) if name.endswith(".safetensors") else "other bytes"
            yield f"{name}: {how}"


def _other_metrics(a: Path, b: Path) -> Iterator[str]:
    left, right = (json.loads(path.read_text()) for path in (a, b))
    for key in sorted(left["metrics"].keys() | right["metrics"].keys()):
        values = [record["metrics"].get(key) for record in (left, right)]
        if not NOT_COMPARED.search(key) and values[0] != values[1]:
            yield f"{key}: {values[0]} uninterrupted, {values[1]} killed"
    for key in ("stage", "fingerprint", "upstream"):
        if left[key] != right[key]:
            yield f"{key} of artifact.json"


def _other_tensors(a: Path, b: Path) -> str:
    left, right = load_file(a), load_file(b)
    other = [name for name in left if name not in right or left[name].tobytes() != right[name].tobytes()]
    return f"{len(other)} of {len(left)} tensors differ"


Course = dict[tuple[int, str], set[str]]


def course(root: Path) -> Course:
    """Values that all runs below `root` logged, by step and metric; more than one value where they disagree."""
    found: Course = defaultdict(set)
    for path in root.rglob("metrics.csv"):
        header, *rows = path.read_text().split("\n")
        names = header.split(",")
        for row in rows[:-1]:  # after the last line break there is nothing, or half a row
            values = dict(zip(names, row.split(","), strict=True))
            for name, value in values.items():
                if value and name != "step" and not NOT_COMPARED.search(name):
                    found[int(values["step"]), name].add(value)
    return found


def other_course(expected_root: Path, found_root: Path) -> Iterator[str]:
    """Yields a line on the first step whose logged values differ or, except for `lost_rows`, are missing."""
    expected, found = course(expected_root), course(found_root)
    lost = {step - 1 for step in lost_rows(expected_root, found_root)}
    other = sorted(
        (at, name)
        for at, name in expected.keys() | found.keys()
        if expected.get((at, name)) != found.get((at, name)) and not (at in lost and (at, name) not in found)
    )
    if other:
        at, name = other[0]
        values = [", ".join(sorted(log.get((at, name), {"nothing"}))) for log in (expected, found)]
        found_values = f"{values[0]} uninterrupted, {values[1]} killed"
        yield f"{len(other)} logged values, first {name} of step {at + 1}: {found_values}"


def lost_rows(expected_root: Path, found_root: Path) -> list[int]:
    """Steps with a checkpoint and without a validation whose row the killed runs did not log.

    The row is written after the checkpoint: after a kill between the two no run repeats the step.
    """
    expected, found = course(expected_root), course(found_root)
    validated = {at for at, name in expected if name.startswith("val/")}
    lost = {at for at, _ in expected.keys() - found.keys()} - validated
    return sorted(at + 1 for at in lost if (at + 1) % CHECKPOINT_EVERY == 0)


_STATES = ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "random_states")
"""Parts of a checkpoint that determine how training continues; the others hold paths and times."""


def _other_states(a: Path, b: Path) -> Iterator[str]:
    left, right = (
        dict(_leaves({name: saved[name] for name in _STATES}))
        for saved in (torch.load(path, weights_only=True) for path in (a, b))
    )
    other = [name for name in left.keys() | right.keys() if left.get(name) != right.get(name)]
    if other:
        yield f"{a.name}: {len(other)} of {len(left)} values, {min(other)} for one"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested containers by their path, tensors as bytes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from _leaves(inner, f"{name}/{key}")
    else:
        yield name, value.numpy().tobytes() if isinstance(value, torch.Tensor) else value
