"""Stage `prepare`: a data source becomes a cell store with splits, flat-velocity flags and a list of rejects.

Reads `data.*` and `compute.workers`. Publishes the store (see `pianolm.data.cell_store`), `rejects.csv` with
every file that could not be used and why, `repairs.csv` with every piece whose beats were mended or far
extended, and for the demo the composed files (`midi/`).
"""

from __future__ import annotations

import csv
import os
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pianolm.data.cell_store import SPLITS, CellStoreWriter
from pianolm.data.reading import Prepared, read_records, select_records
from pianolm.data.sources import Collection, Record, collect
from pianolm.errors import UserError
from pianolm.stage import Metrics, StageContext

VERSION = 1

_FAR_EXTENDED = 8

"""Beats added before or after the annotated ones that are worth a row in repairs.csv."""

_REASONS_QUOTED = 3


def run(ctx: StageContext) -> Metrics:
    """Reads every record of the data source into the cell store at `ctx.out`.

    Raises:
        UserError: The source's folder is missing or of another layout, or none of its files can be used.
    """
    data = ctx.cfg["data"]
    collection = collect(data, ctx.out / "midi")
    records = select_records(collection.records, data)
    start = time.perf_counter()
    report = _Report(collection)
    with CellStoreWriter(ctx.out) as store:
        results = read_records(records, bool(data.get("score_velocity", False)), _worker_count(ctx.cfg))
        for record, result in zip(records, results, strict=True):
            if isinstance(result, Prepared):
                store.add(result.row, result.cells, result.beats_sec, result.downbeat)
            report.add(record, result)
    report.write(ctx.out)
    metrics = report.metrics(time.perf_counter() - start)
    if metrics["files"] == metrics["rejected"]:
        raise UserError(report.nothing_usable())
    return metrics


class _Report:
    """Counts and lists what came of the files."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._rejects = list(collection.rejects)
        self._repairs: list[tuple[str | int, ...]] = []
        keys = (
            "repaired",
            *(f"pieces_{split}" for split in SPLITS),
            "notes",
            "cells",
            "beats",
            "flat_pieces",
        )
        self._counts: dict[str, int] = dict.fromkeys(keys, 0)
        self._files = len(self._rejects)

    def add(self, record: Record, result: Prepared | str) -> None:
        path = record.path
        self._files += 1
        if isinstance(result, str):
            # Where the folder lies is no part of the result.
            reason = result
            for root in self._collection.roots:
                reason = reason.replace(f"{root}{os.sep}", "")
            self._rejects.append((path, reason.removeprefix(f"{path}: ")))
            return
        row, repairs = result.row, result.repairs
        self._counts["repaired"] += repairs.any
        self._counts[f"pieces_{row.split}"] += 1
        for key in ("notes", "cells", "beats"):
            self._counts[key] += getattr(row, key)
        self._counts["flat_pieces"] += row.flat
        if repairs.any or max(repairs.added_before, repairs.added_after) > _FAR_EXTENDED:
            self._repairs.append((path, row.beats, *astuple(repairs)))

    def write(self, directory: Path) -> None:
        _write_table(directory / "rejects.csv", ("path", "reason"), self._rejects)
        columns = ("path", "beats", "reordered", "merged", "inserted", "added_ahead", "added_behind")
        _write_table(directory / "repairs.csv", columns, self._repairs)

    def metrics(self, seconds: float) -> Metrics:
        return {
            "files": self._files,
            "rejected": len(self._rejects),
            **self._counts,
            "files_per_second": round(self._files / max(seconds, 1e-9), 1),
            "peak_rss_mb": round(_peak_rss_mb(), 1),
        }

    def nothing_usable(self) -> str:
        quoted = "; ".join(f"{path}: {reason}" for path, reason in self._rejects[:_REASONS_QUOTED])
        more = len(self._rejects) - _REASONS_QUOTED
        rest = f"; and {more} more" if more > 0 else ""
        return f"{self._collection.root}: none of {self._files} files can be used ({quoted}{rest})"


def _worker_count(cfg: Mapping[str, Any]) -> int:
    """The value of `compute.workers`; null is one process a core."""
    workers = (cfg.get("compute") or {}).get("workers")
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(int(workers), 1)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _peak_rss_mb() -> float:
    """Largest memory that this process or one of its workers ever held."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
