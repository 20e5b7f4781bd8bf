"""The report of stage `prepare`: counts for its metrics, and tables of rejected files and repaired beats."""

from __future__ import annotations

import csv
import os
import resource
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pianolm.data.cell_store import SPLITS, PieceRow
from pianolm.data.reading import ReadPiece, Rejected
from pianolm.data.sources import Collection, Record
from pianolm.music.beats import Repairs

_MANY_ADDED_BEATS = 8
"""A piece is listed in `repairs.csv` if more beats than this were added before or after the annotated ones."""
_QUOTED_REASONS = 3


class PrepareReport:
    """Counts pieces and lists files that were rejected or whose beats were changed.

    Attributes:
        files: Number of files of the data source, rejected ones included.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._rejects = list(collection.rejects)
        self._repairs: list[tuple[str | int, ...]] = []
        pieces = [f"pieces_{split}" for split in SPLITS]
        self._counts = dict.fromkeys(("repaired", *pieces, "notes", "cells", "beats", "flat_pieces"), 0)
        self.files = len(self._rejects)

    @property
    def any_usable(self) -> bool:
        """Whether at least one file could be used."""
        return len(self._rejects) < self.files

    def add(self, record: Record, result: ReadPiece | Rejected) -> None:
        """Counts one file."""
        self.files += 1
        if isinstance(result, Rejected):
            self._rejects.append((record.path, self._without_folders(result.reason, record.path)))
        else:
            self._add_piece(result.row, result.repairs)

    def _without_folders(self, reason: str, path: str) -> str:
        """A reason without the data's location, so that the published table does not depend on it."""
        for root in self._collection.roots:
            reason = reason.replace(f"{root}{os.sep}", "")
        return reason.removeprefix(f"{path}: ")

    def _add_piece(self, row: PieceRow, repairs: Repairs) -> None:
        self._counts["repaired"] += repairs.any
        self._counts[f"pieces_{row.split}"] += 1
        for key in ("notes", "cells", "beats"):
            self._counts[key] += getattr(row, key)
        self._counts["flat_pieces"] += row.flat
        added = repairs.added_before, repairs.added_after
        if repairs.any or max(added) > _MANY_ADDED_BEATS:
            changes = (repairs.reordered, repairs.merged, repairs.inserted, *added)
            self._repairs.append((row.path, row.beats, *changes))

    def write(self, directory: Path) -> None:
        """Writes `rejects.csv` and `repairs.csv`."""
        _write_csv(directory / "rejects.csv", ("path", "reason"), self._rejects)
        columns = ("path", "beats", "reordered", "merged", "inserted", "added_before", "added_after")
        _write_csv(directory / "repairs.csv", columns, self._repairs)

    def metrics(self, seconds: float) -> dict[str, float | int | str]:
        """Metrics of the stage, given the seconds it took to read the files."""
        return {
            "files": self.files,
            "rejected": len(self._rejects),
            **self._counts,
            "files_per_second": round(self.files / max(seconds, 1e-9), 1),
            "peak_rss_mb": round(_peak_rss_mb(), 1),
        }

    def no_usable_file(self) -> str:
        """Error message for a data source without a usable file."""
        quoted = "; ".join(f"{path}: {reason}" for path, reason in self._rejects[:_QUOTED_REASONS])
        more = len(self._rejects) - _QUOTED_REASONS
        rest = f"; and {more} more" if more > 0 else ""
        return f"{self._collection.root}: none of {self.files} files can be used ({quoted}{rest})"


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def _peak_rss_mb() -> float:
    """Largest resident memory of this process or one of its workers so far."""
    peaks = (resource.getrusage(of).ru_maxrss for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) / (2**20 if sys.platform == "darwin" else 2**10)
