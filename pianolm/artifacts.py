"""Artifacts: directories named by the fingerprint of everything that determines them.

Artifacts are published atomically: a directory is filled beside its place and renamed when complete, under a lock, so
that two jobs build it once. `artifact.json` records the size and the hash of every file, so that a directory from which
files are missing, or whose files were changed, is not reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock

from pianolm.errors import UserError
from pianolm.json_file import read_object

RECORD = "artifact.json"
_RUNS = ".runs"
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


def problem_of(directory: Path, hashes: bool = False) -> str | None:
    """What is wrong with an artifact directory, None where its files are those that were published.

    Args:
        directory: The artifact.
        hashes: Compares contents, too; else presence and sizes only, which is fast.
    """
    try:
        record = read_record(directory)
    except UserError:
        return f"{RECORD} is not readable"
    if record is None:
        return f"{RECORD} is missing"
    if not isinstance(files := record.get("files"), dict) or not all(map(_is_listed, files.values())):
        return f"{RECORD} does not list its files"
    if not isinstance(record.get("fingerprint"), str):
        return f"{RECORD} does not say a fingerprint"
    for name, (size, digest) in files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were published"
        if hashes and _digest(path) != digest:
            return f"{name} has other contents than were published"
    return None


def _is_listed(entry: object) -> bool:
    """Whether an entry of a record says size and hash of a file."""
    return isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is int and isinstance(entry[1], str)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_record(directory: Path) -> dict[str, Any] | None:
    """`artifact.json` of an artifact directory, None when it has none.

    Raises:
        UserError: The file is there but not readable.
    """
    path = directory / RECORD
    if not path.is_file():
        return None
    return read_object(path, "remove that artifact and build it again")


def licences_of(path: Path) -> list[str]:
    """Licences of the data that an artifact or file comes from; `unknown` where it does not say."""
    record = read_record(path) if path.is_dir() else None
    licences = (record or {}).get("licences")
    return [str(name) for name in licences] if isinstance(licences, list) and licences else ["unknown"]


class ArtifactStore:
    """Published artifacts under `root/<stage>/<fingerprint>/`.

    Args:
        root: The directory.
        verify: Compares the contents of files before an artifact is reused, not only their presence and sizes.
    """

    def __init__(self, root: Path, verify: bool = False) -> None:
        self.root, self.verify = root, verify

    def path(self, stage: str, name: str) -> Path:
        """Where an artifact lies once it is published."""
        return self.root / stage / name

    def find(self, stage: str, name: str) -> Path | None:
        """The directory of a published artifact, None where there is none whose files are those published."""
        path = self.path(stage, name)
        return path if path.is_dir() and problem_of(path, self.verify) is None else None

    def newest(self, stages: Iterable[str]) -> Path | None:
        """The artifact of these stages that was published last; None where there is none."""
        records = [record for stage in stages for record in (self.root / stage).glob(f"[!.]*/{RECORD}")]
        return max(records, key=lambda record: record.stat().st_mtime_ns).parent if records else None

    def note_run(self, metrics: Path) -> None:
        """Remembers the `metrics.json` of a run, wherever its directory lies, so that its artifacts count as used."""
        folder, text = self.root / _RUNS, str(metrics.absolute())
        if not self.root.is_dir():
            return  # the run used only artifacts that were given
        with contextlib.suppress(OSError):  # nobody can prune a store that this run cannot write to
            folder.mkdir(exist_ok=True)
            (folder / hashlib.sha256(text.encode()).hexdigest()[:16]).write_text(text)

    def runs(self) -> Iterator[Path]:
        """The `metrics.json` files of runs that still exist."""
        for note in sorted((self.root / _RUNS).glob("*")):
            if (metrics := Path(note.read_text())).is_file():
                yield metrics

    def all(self) -> Iterator[Path]:
        """The directories of all artifacts, by stage and fingerprint."""
        for path in sorted(self.root.glob("*/*")):
            if path.is_dir() and not path.name.startswith(".") and not path.parent.name.startswith("."):
                yield path

    @contextmanager
    def lock(self, stage: str, name: str) -> Iterator[None]:
        """Holds the right to build one artifact; a second builder waits here."""
        folder = self.root / stage
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            yield

    def recover(self, stage: str, name: str) -> str | None:
        """Puts an artifact in order before it is built; the caller holds the lock.

        A run with `force=true` that was killed between its two renames has left the old artifact under another name,
        from which it comes back. A directory whose files are not those published is set aside.

        Returns:
            A sentence on what was set aside and why, None where nothing was.
        """
        target = self.path(stage, name)
        for old in sorted(target.parent.glob(f".{name}.*.old")):
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(target)
        if not target.is_dir() or (problem := problem_of(target, self.verify)) is None:
            return None
        aside = target.with_name(f"{name}.damaged-{uuid.uuid4().hex[:8]}")
        target.rename(aside)
        return f"{target}: {problem}; set aside as {aside.name} and built again"

    @contextmanager
    def publish(self, stage: str, name: str) -> Iterator[Path]:
        """Gives an empty directory, which becomes the artifact when the block ends without an error.

        The caller holds the lock, so unfinished directories of the same name belong to killed runs and are removed.
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
            if target.exists():  # force=true: the old artifact stays until the new one is complete
                target.rename(old)
            partial.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_record(directory: Path, record: Mapping[str, Any], patterns: Iterable[str] = ("*",)) -> None:
    """Writes `artifact.json`: what was built from what, with which versions, and size and hash of its files.

    Args:
        directory: Gets the record.
        record: What it says beside versions and files.
        patterns: Patterns of the relative paths of the files that must stay as they are; all of them by default.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    names = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    kept = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)} - {RECORD}
    paths = [directory / name for name in sorted(kept)]
    files = {path.relative_to(directory).as_posix(): [path.stat().st_size, _digest(path)] for path in paths}
    content = {**record, "versions": versions, "git_commit": _git_commit(), "files": files}
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
