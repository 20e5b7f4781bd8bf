"""Files that cannot be written: a full disk, a read-only place, no permission. One sentence for all of them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pianolm.errors import UserError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PLACE = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EPERM",
        "EROFS",
        "ENOENT",
        "ENOTDIR",
        "EISDIR",
        "EEXIST",
        "ELOOP",
        "ENAMETOOLONG",
        "EIO",
    )
)
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How safetensors reports the system's error."""
_TORN = "requested and"
"""Of NumPy's error, which has no number, when an array is written in part."""


def file_error(error: BaseException) -> OSError | None:
    """The system's error behind an exception of a file that could not be written; None for any other exception."""
    if isinstance(error, UserError):
        return None  # it says what happened
    if isinstance(error, OSError):
        if error.errno is None and _TORN in str(error):
            return OSError(errno.ENOSPC, "it was written in part")
        return error if error.errno in _NO_SPACE | _NO_PLACE else None
    if (found := _IN_TEXT.search(str(error))) is not None:
        return file_error(OSError(int(found[1]), os.strerror(int(found[1]))))
    # torch's zip writer raises a RuntimeError while it handles the system's error
    behind = error.__context__ if isinstance(error, RuntimeError) else None
    return None if behind is None else file_error(behind)


def unwritable(error: OSError, place: Path, kept: str, what: str = "") -> UserError:
    """The sentence for a file that could not be written.

    Args:
        error: The system's error; its file is named where it has one.
        place: The file or directory that was written.
        kept: What is complete nevertheless.
        what: What the file is, such as "this checkpoint".
    """
    path = error.filename if isinstance(error.filename, str) else str(place)
    if error.errno in _NO_SPACE:
        problem, remedy = "could not be written", "free some space"
    else:
        problem, remedy = (
            "cannot be used",
            "allow it, or give another place (paths.artifacts, paths.outputs),",
        )
    problem = f"{what} {problem}".strip()
    return UserError(f"{path}: {problem} ({error.strerror}); {kept}: {remedy} and run the same command again")


@contextmanager
def unwritable_files_told(place: Path, kept: Callable[[], str]) -> Iterator[None]:
    """Turns the error of a file that cannot be written into one sentence.

    Args:
        place: The directory that the block writes.
        kept: Returns what is complete nevertheless; called after the error.

    Raises:
        UserError: A file could not be written.
    """
    try:
        yield
    except Exception as error:
        if (problem := file_error(error)) is None:
            raise
        raise unwritable(problem, place, kept()) from error
