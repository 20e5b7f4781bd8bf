"""Content hashes of files, remembered by size, times and inode, so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import time
from pathlib import Path

_SETTLED_NS = 2_000_000_000
"""A file changed this short a time ago may change again without another time stamp: its hash is not remembered."""
_LINES = 1000
"""Hashes written at a time: a run that is killed repeats at most as many."""

Stamp = tuple[int, int, int, int]
"""Size, time of the last change of the content and of the inode in nanoseconds, inode."""


class FileHashes:
    """Hashes of the files below one directory, kept in a file with a line each; later lines replace earlier ones.

    Args:
        memory: The file; None to remember nothing after this process. It is left out where it cannot be written.
    """

    def __init__(self, memory: Path | None) -> None:
        self._memory, self._known = memory, dict[str, tuple[Stamp, str]]()
        self._new: list[str] = []
        with contextlib.suppress(OSError, ValueError, TypeError):
            if memory is not None:
                self._read(memory)

    def _read(self, memory: Path) -> None:
        text = memory.read_text("utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be torn
        for path, (size, changed, moved, inode), digest in json.loads(f"[{','.join(lines)}]"):
            self._known[path] = (size, changed, moved, inode), digest
        if len(lines) > 2 * len(self._known) + _LINES:
            beside = memory.with_suffix(f".{os.getpid()}")
            beside.write_text("".join(_line(path, *known) for path, known in self._known.items()), "utf-8")
            os.replace(beside, memory)

    def of(self, path: Path | str) -> tuple[int, str]:
        """Size and content hash (32 hex digits) of a file.

        Raises:
            FileNotFoundError: There is no such regular file.
            OSError: It cannot be read.
        """
        name, status = os.fspath(path), os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self._known.get(name)
        if known is not None and known[0] == stamp:
            return status.st_size, known[1]
        with open(path, "rb") as file:
            content = file.read()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        if time.time_ns() - max(stamp[1], stamp[2]) > _SETTLED_NS:
            self._known[name] = stamp, digest
            self._new.append(_line(name, stamp, digest))
        if len(self._new) >= _LINES:
            self.save()
        return len(content), digest

    def save(self) -> None:
        """Appends what is new to the file."""
        if self._memory is not None and self._new:
            with contextlib.suppress(OSError):
                self._memory.parent.mkdir(parents=True, exist_ok=True)
                with self._memory.open("a", encoding="utf-8") as file:
                    file.write("".join(self._new))
        self._new.clear()


def _line(path: str, stamp: Stamp, digest: str) -> str:
    return json.dumps([path, stamp, digest], separators=(",", ":")) + "\n"


class HashMemory:
    """The remembered hashes of all directories that this process reads, each read from its file once."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._below: dict[Path, FileHashes] = {}

    def keep_in(self, directory: Path) -> None:
        """Keeps the hashes in this directory, a file for each data set; before, they are kept for this process only."""
        if directory != self._directory:
            self._directory, self._below = directory, {}

    def below(self, root: Path) -> FileHashes:
        """The hashes of files below a directory."""
        root = root.absolute()
        if root not in self._below:
            name = hashlib.blake2b(os.fsencode(root), digest_size=8).hexdigest()
            self._below[root] = FileHashes(self._directory and self._directory / f"{name}.jsonl")
        return self._below[root]


HASHES = HashMemory()
"""The hashes of this process."""
