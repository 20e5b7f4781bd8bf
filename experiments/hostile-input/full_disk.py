"""Runs the tiny chain where the disk fills up: one sentence, and what is published is whole."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from commands import Command

from pianolm.artifacts import ArtifactStore, problem_of

PLACES: dict[str, tuple[tuple[str, ...], int]] = {
    "prepare": (("stage=prepare", "data.pieces=24", "data.seed=5"), 150_000),
    "tokenize": (("stage=tokenize", "tokenizer=base", "tokenizer.tempo=log50_tuned"), 45_000),
    "training": (("stage=base", "base.trainer.max_steps=30"), 700_000),
    "generate": (("stage=generate",), 70_000),
}
"""Commands, and the bytes that are free when they start."""


@dataclass(frozen=True)
class FullDisk:
    """What became of a run on a full disk.

    Attributes:
        place: The stage.
        by: How the disk was made small: `tmpfs`, or `largest file` where no file system can be mounted.
        said: The last line that was printed.
        problem: What was wrong; empty if nothing was.
    """

    place: str
    by: str
    said: str
    problem: str


def fill_disks(upstream: Path, scratch: Path) -> Iterator[FullDisk]:
    """Runs every place of `PLACES` on a disk that fills up, and again on one with room.

    Args:
        upstream: A directory with the artifacts of the whole chain.
        scratch: Where the runs go.
    """
    for place, (overrides, free) in PLACES.items():
        root = scratch / f"full_{place}"
        with small_disk(root, upstream / "artifacts", free) as (by, before, enlarge):
            command = Command(root, overrides, before)
            code = command.finish()
            said = command.lines[-1][1] if command.lines else ""
            problem = _problem(command, code, root)
            if not problem:
                enlarge()
                again = Command(root, overrides)
                if again.finish() != 0:
                    problem = f"with room it fails, too: {again.text[-400:]}"
        yield FullDisk(place, by, said.replace(str(root), "RUN"), problem)


def _problem(command: Command, code: int, root: Path) -> str:
    if code != 1 or "Traceback" in command.text:
        return f"exit code {code}: {command.text[-600:]}"
    errors = [line for _, line in command.lines if line.startswith("pianolm: ")]
    if len(errors) != 1 or "could not be written" not in errors[0]:
        return f"no sentence: {command.text[-600:]}"
    damaged = [str(path) for path in ArtifactStore(root / "artifacts").all() if problem_of(path, hashes=True)]
    if damaged:
        return f"published, but not whole: {damaged}"
    left = [path.name for path in (root / "artifacts").rglob("*.partial")]
    return f"left behind: {left}" if left else ""


@contextmanager
def small_disk(
    root: Path, artifacts: Path, free: int
) -> Iterator[tuple[str, Callable[[], None] | None, Callable[[], None]]]:
    """A directory with a copy of artifacts and little space.

    Yields:
        How it was made, what a process calls before it starts, and a function that makes room.
    """
    root.mkdir(parents=True)
    used = sum(path.stat().st_blocks * 512 for path in artifacts.rglob("*") if path.is_file())
    mounted = _mount(root, used + 2_000_000)
    try:
        shutil.copytree(artifacts, root / "artifacts")
        if mounted:
            now = shutil.disk_usage(root).used
            _remount(root, now + free)
            yield "tmpfs", None, lambda: _remount(root, now + 50_000_000)
        else:
            yield (
                "largest file",
                lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
                lambda: None,
            )
    finally:
        if mounted:
            subprocess.run(["umount", str(root)], check=True)


def _mount(root: Path, size: int) -> bool:
    return os.geteuid() == 0 and _ran(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)])


def _remount(root: Path, size: int) -> None:
    assert _ran(["mount", "-o", f"remount,size={size}", str(root)]), "it is ours"


def _ran(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
