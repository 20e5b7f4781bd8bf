"""Progress through many files on the terminal: how many are done, files per second and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

_FIRST_SEC, _EVERY_SEC = 1.0, 5.0
Item = TypeVar("Item")


def with_progress(items: Iterable[Item], total: int, doing: str) -> Iterator[Item]:
    """Yields the items, and prints a line one second after the first and then every five seconds.

    Args:
        items: Files, or results for files.
        total: How many there are.
        doing: The beginning of a line, such as `prepare: reads`.
    """
    start, next_sec = 0.0, _FIRST_SEC
    for done, item in enumerate(items):
        start = start if done else time.perf_counter()  # workers may take a while to start
        seconds = time.perf_counter() - start
        if seconds >= next_sec:
            left = timedelta(seconds=round(seconds / done * (total - done)))
            print(
                f"{doing} {done:,} of {total:,} files  {done / seconds:,.0f} files/s  {left} left", flush=True
            )
            next_sec = seconds + _EVERY_SEC
        yield item
