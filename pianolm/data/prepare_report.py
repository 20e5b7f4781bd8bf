"""The report of stage `prepare`: counts, lines for the terminal, and tables of rejects, repaired beats and others."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from pianolm.csv_file import write_csv
from pianolm.data.cell_store import SPLITS, PieceRow
from pianolm.data.reading import ReadPiece, Rejected
from pianolm.data.sources import Collection, Record
from pianolm.data.works.grouping import PieceWork, works_lines, write_works
from pianolm.music.beats import Repairs
from pianolm.music.remarks import Remarks

_MANY_ADDED_BEATS = 8
"""A piece is listed in `repairs.csv` if more beats than this were added before or after the annotated ones."""
_QUOTED_REASONS = 3
_FEW_PIECES = 3
_COUNTED = {
    "other_notes": "notes of other instruments left out; data.programs=all reads them",
    "drum_notes": "drum notes left out",
    "beat_track_notes": "notes of beat tracks left out",
    "unended_notes": "notes without an end, held to the end of their track",
    "missing_tracks": "tracks missing that headers announce: notes may be missing",
    "cut_tracks": "tracks without an end-of-track event, or with data after it: notes may be missing",
    "pedalled_notes": "notes extended by the sustain pedal",
    "silent_beats_cut": "silent beats cut before first notes",
}
"""Fields of `Remarks` that are added up, and what they count."""


class PrepareReport:
    """Counts pieces and lists files that were rejected or whose beats were changed.

    Attributes:
        files: Number of files of the data source, rejected ones included.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._rejects = list(collection.rejects)
        self._repairs: list[tuple[str | int, ...]] = []
        self._remarks: list[tuple[Record, Remarks]] = []
        self._works: list[PieceWork] = []
        pieces = [f"pieces_{split}" for split in SPLITS]
        self._counts = dict.fromkeys(("repaired", *pieces, "notes", "cells", "beats", "flat_pieces"), 0)
        self.files = len(self._rejects)

    @property
    def any_usable(self) -> bool:
        """Whether at least one file could be used."""
        return len(self._rejects) < self.files

    def add(self, record: Record, result: ReadPiece | Rejected, work: PieceWork) -> None:
        """Counts one file; its work matters if it can be used."""
        self.files += 1
        if isinstance(result, Rejected):
            path = f"{record.source}/{record.path}" if self._collection.parts else record.path
            self._rejects.append((path, self._without_folders(result.reason, record.path)))
        else:
            self._add_piece(result.row, result.repairs)
            self._works.append(work)
            if result.remarks.sentences():
                self._remarks.append((record, result.remarks))

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
            self._repairs.append((row.source, row.path, row.beats, *changes))

    def write(self, directory: Path) -> None:
        """Writes `rejects.csv`, `excluded.csv`, `works.csv`, `repairs.csv` and `remarks.csv`."""
        write_csv(directory / "rejects.csv", ("path", "reason"), self._rejects)
        excluded = [(piece.path, piece.work, piece.why) for piece in self._collection.excluded]
        write_csv(directory / "excluded.csv", ("path", "work", "why"), excluded)
        write_works(directory / "works.csv", self._works)
        columns = ("beats", "reordered", "merged", "inserted", "added_before", "added_after")
        write_csv(directory / "repairs.csv", ("source", "path", *columns), self._repairs)
        remarks = [(one.source, one.path, text) for one, told in self._remarks for text in told.sentences()]
        write_csv(directory / "remarks.csv", ("source", "path", "remark"), remarks)

    def lines(self) -> list[str]:
        """What was done, one line each, with warnings about splits that are too small."""
        pieces = {split: self._counts[f"pieces_{split}"] for split in SPLITS}
        used = self.files - len(self._rejects)
        lines = [
            f"{self.files} files: {used} used, {len(self._rejects)} rejected{self._first_reasons()}",
            f"{self._counts['repaired']} pieces with repaired beats, {self._counts['flat_pieces']} without velocities",
            *self._excluded_lines(),
            *self._remark_lines(),
            *works_lines(self._works),
            "pieces: " + ", ".join(f"{count} {split}" for split, count in pieces.items()),
        ]
        small = [split for split, count in pieces.items() if count < _FEW_PIECES]
        if small:
            lines.append(
                f"warning: fewer than {_FEW_PIECES} pieces in {', '.join(small)}; figures of such a split say little"
            )
        return lines

    def _excluded_lines(self) -> Iterator[str]:
        excluded = self._collection.excluded
        if excluded:
            yield f"{len(excluded)} pieces left out, listed with reasons in excluded.csv"

    def _remark_lines(self) -> Iterator[str]:
        remarks = [remarks for _, remarks in self._remarks]
        default = sum(remark.default_tempo for remark in remarks)
        if default:
            yield (
                f"{default} pieces with only the default tempo of 120 BPM, or one that their notes do not follow: "
                "put beat files beside them, estimate their beats with data.beats=auto and "
                "data.default_tempo=estimate, or leave them out with data.default_tempo=reject"
            )
        yield from self._estimated_lines()
        for field, text in _COUNTED.items():
            counts = [getattr(remark, field) for remark in remarks if getattr(remark, field)]
            if counts:
                yield f"{sum(counts)} {text} ({len(counts)} files)"
        tracks = sum(remark.beat_track is not None for remark in remarks)
        if tracks:
            yield f"{tracks} pieces with beats from a beat track"

    def _estimated_lines(self) -> Iterator[str]:
        sure = [
            (one.beat_confidence, record.path)
            for record, one in self._remarks
            if one.beat_confidence is not None
        ]
        if sure:
            confidence, path = min(sure)
            mean = sum(value for value, _ in sure) / len(sure)
            yield (
                f"{len(sure)} pieces with beats estimated from their notes, mean confidence {mean:.2f}, "
                f"least {confidence:.2f} ({path})"
            )
        kept = sum(remarks.clock_kept for _, remarks in self._remarks)
        if kept:
            yield f"{kept} pieces with only the default tempo of 120 BPM, kept as their notes lie on its grid"

    def metrics(self, seconds: float, kept: int = 0) -> dict[str, float | int | str]:
        """Metrics of the stage.

        Args:
            seconds: Time it took to read the files.
            kept: Files that an earlier run has read.
        """
        return {
            "files": self.files,
            "rejected": len(self._rejects),
            "excluded": len(self._collection.excluded),
            "estimated": sum(remarks.beat_confidence is not None for _, remarks in self._remarks),
            **self._counts,
            "works": len({work.work for work in self._works}),
            "moved_pieces": sum(work.moved for work in self._works),
            "files_per_second": round((self.files - kept) / max(seconds, 1e-9), 1),
            "peak_rss_mb": round(_peak_rss_mb(), 1),
        }

    def no_usable_file(self) -> str:
        """Error message for a data source without a usable file."""
        return f"{self._collection.root}: none of {self.files} files can be used{self._first_reasons()}"

    def _first_reasons(self) -> str:
        """The first reasons in brackets; empty if no file was rejected."""
        if not self._rejects:
            return ""
        quoted = "; ".join(f"{path}: {reason}" for path, reason in self._rejects[:_QUOTED_REASONS])
        more = len(self._rejects) - _QUOTED_REASONS
        return f" ({quoted}{f'; and {more} more' if more > 0 else ''})"


def _peak_rss_mb() -> float:
    """Largest resident memory of this process or one of its workers so far."""
    peaks = (resource.getrusage(of).ru_maxrss for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) / (2**20 if sys.platform == "darwin" else 2**10)
