"""Results of a long computation over many items, kept on disk part by part, so that a killed run goes on from there."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

PART = 64
"""Items whose results are in one file; a run that goes on repeats at most as many."""
_FOLDER = "kept"


class KeptResults(Generic[Result]):
    """Results of a list of items in order, in files of `PART` items each below the work directory of a stage.

    The work directory belongs to one fingerprint, so results of other inputs or options are never found there. A file
    that cannot be read, or that has the results of other items, is ignored. Results are pickled: like the checkpoints
    of training they are read by nothing but the run that goes on.

    Args:
        work: Work directory of the stage.
        keys: Name of each item.
        cfg: The configuration; with `resume=never` the results of an earlier run are removed.

    Attributes:
        count: Number of items whose results an earlier run has left.
    """

    def __init__(self, work: Path, keys: Sequence[str], cfg: Mapping[str, Any]) -> None:
        self._directory, self._keys = work / _FOLDER, keys
        if cfg.get("resume") == "never":
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._parts = [range(i, min(i + PART, len(keys))) for i in range(0, len(keys), PART)]
        self._kept = {part.start for part in self._parts if self._path(part).is_file()}
        self.count = sum(len(part) for part in self._parts if part.start in self._kept)

    def complete(self, compute: Callable[[Sequence[int]], Iterator[Result]]) -> Iterator[Result]:
        """Yields the results of all items in order; computes and keeps those that are missing.

        Args:
            compute: Yields the results of the items with the indices given, in their order.
        """
        missing = compute([i for part in self._parts if part.start not in self._kept for i in part])
        for part in self._parts:
            results = self._load(part) if part.start in self._kept else None
            if results is None:
                damaged = part.start in self._kept
                results = list(compute(part) if damaged else islice(missing, len(part)))
                self._save(part, results)
            yield from results

    def select(self, items: Sequence[int]) -> Iterator[Result]:
        """Yields the results of some items in the order given, after `complete` has yielded all.

        One part is in memory at a time; items that follow each other in the list should be in the same or the next one.
        """
        start, results = -1, None
        for item in items:
            part = self._parts[item // PART]
            if part.start != start:
                start, results = part.start, self._load(part)
            assert results is not None, f"{self._path(part)} was there a moment ago"
            yield results[item - start]

    def _path(self, part: range) -> Path:
        return self._directory / f"{part.start:08d}.pkl"

    def _load(self, part: range) -> list[Result] | None:
        try:
            keys, results = pickle.loads(self._path(part).read_bytes())
        except Exception:  # a damaged pickle raises anything
            return None
        return results if keys == self._keys[part.start : part.stop] else None

    def _save(self, part: range, results: list[Result]) -> None:
        path = self._path(part)
        beside = path.with_suffix(".partial")
        beside.write_bytes(
            pickle.dumps((self._keys[part.start : part.stop], results), pickle.HIGHEST_PROTOCOL)
        )
        os.replace(beside, path)  # complete or absent


def kept_items(work: Path) -> bool:
    """Whether a work directory holds results that a run goes on from."""
    return any((work / _FOLDER).glob("*.pkl"))
