"""Artifacts: directories named by the fingerprint of everything that determines them.

A directory that exists is whole: it is filled beside its place and renamed when complete, under a lock, so that two
jobs build it once.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pianolm.errors import UserError

RECORD = "artifact.json"
_PACKAGES = ("pianolm", "torch", "lightning", "transformers", "vector-quantize-pytorch", "numpy", "symusic")


def fingerprint(value: Mapping[str, Any]) -> str:
    """16 hex digits of what determines a result; equal for equal JSON, whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """Content hash of a file, or of all files of a directory by relative path."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() if file != path else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def read_record(directory: Path) -> dict[str, Any] | None:
    """`artifact.json` of an artifact directory, None when it has none.

    Raises:
        UserError: The file is there but not readable.
    """
    path = directory / RECORD
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path}: not readable as JSON ({error}); remove that artifact and build it again"
        ) from error
    return record


class ArtifactStore:
    """Published artifacts under `root/<stage>/<fingerprint>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, name: str) -> Path:
        """Where an artifact lies once it is published."""
        return self.root / stage / name

    def find(self, stage: str, name: str) -> Path | None:
        """The directory of a published artifact, None when it is not there."""
        path = self.path(stage, name)
        return path if path.is_dir() else None

    @contextmanager
    def lock(self, stage: str, name: str) -> Iterator[None]:
        """Holds the right to build one artifact; a second builder waits here."""
        folder = self.root / stage
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            yield

    @contextmanager
    def publish(self, stage: str, name: str) -> Iterator[Path]:
        """Gives an empty directory; when the block ends well it becomes the artifact, else it is removed.

        The caller holds the lock: what lies there unfinished is of a run that was killed, and goes.
        """
        target = self.path(stage, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        partial = target.with_name(f".{name}.{uuid.uuid4().hex[:8]}.partial")
        partial.mkdir()
        try:
            yield partial
            old = target.with_name(f".{name}.{uuid.uuid4().hex[:8]}.old")
            if target.exists():  # force=true: the old one stays until the new one is whole
                target.rename(old)
            partial.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Writes `artifact.json`: what was built, from what, with which versions."""
    versions = {name: _version(name) for name in _PACKAGES}
    content = {**record, "versions": versions, "git_commit": _git_commit()}
    (directory / RECORD).write_text(json.dumps(content, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout pianolm runs from, None outside one."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
