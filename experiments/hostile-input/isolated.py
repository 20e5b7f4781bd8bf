"""Runs a function in a forked process with limits, and says how it ended."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pianolm.errors import UserError

SENTENCE_SEC = 2.0
"""Processor time within which a sentence must come."""
SENTENCE_BYTES = 2**30
"""Memory that a function may add to that of its process."""
_PATIENCE_SEC = 600.0


@dataclass(frozen=True)
class Ending:
    """How a function ended.

    Attributes:
        value: What it returned; None if it raised.
        sentence: The text of its `UserError`; empty if it raised none.
        problem: Another exception, a crash or a hang; empty if there is none.
        seconds: Processor time, which does not depend on what else the machine does.
    """

    value: Any = None
    sentence: str = ""
    problem: str = ""
    seconds: float = 0.0


def isolated(function: Callable[[], Any], limit_bytes: int | None = SENTENCE_BYTES) -> Ending:
    """Calls a function in a forked process.

    Args:
        function: Returns something that can be sent between processes.
        limit_bytes: Address space that it may add to that of this process; None without a limit.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(function, theirs, limit_bytes), daemon=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions warn where there are threads
        process.start()
    theirs.close()
    try:
        ending = (
            ours.recv() if ours.poll(_PATIENCE_SEC) else Ending(problem=f"hangs for {_PATIENCE_SEC:.0f} s")
        )
    except EOFError:
        process.join()
        ending = Ending(problem=f"ended with exit code {process.exitcode}")
    if process.is_alive():
        process.join(5)
        process.kill()
    process.join()
    return ending


def _call(function: Callable[[], Any], pipe: Any, limit_bytes: int | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if limit_bytes is not None:
        limit = _address_space() + limit_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    start = time.process_time()
    try:
        ending = Ending(value=function())
    except UserError as error:
        ending = Ending(sentence=str(error))
    except BaseException as error:  # any other exception is what is looked for
        ending = Ending(problem=f"raised {error!r}"[:300])
    pipe.send(Ending(ending.value, ending.sentence, ending.problem, round(time.process_time() - start, 3)))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
