"""Stage `prepare`: a data source becomes a cell store with splits, flat-velocity flags and a list of rejects.

Reads `data.*` and `compute.workers`. Publishes the store (see `pianolm.data.store`), `rejects.csv` with
every file that could not be used and why, `repairs.csv` with every piece whose beats were mended or far
extended, and for the demo the composed files (`midi/`).
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.sources import KINDS, Collection, Record, collect
from pianolm.data.sources.base import shuffle_key
from pianolm.data.sources.demo import COMPOSER_VERSION, piece_count
from pianolm.data.store import SPLITS, CellStoreWriter, PieceRow
from pianolm.errors import UserError
from pianolm.music.bars import bar_starts
from pianolm.music.beats import Repairs, beat_file_beside
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece
from pianolm.stages.context import Metrics, StageContext

VERSION = 1

_BATCH = 16
"""Files a worker reads at a time."""
_FEW_FILES = 1500
"""Up to here one process is done about as soon as others have started and imported what they need."""
_FAR_EXTENDED = 8
"""Beats added before or after the annotated ones that are worth a row in repairs.csv."""
_REASONS_QUOTED = 3


@dataclass(frozen=True)
class Prepared:
    """One file as read, in the arrays that the store takes; small enough to hand from process to process.

    Attributes:
        row: The store's row.
        cells: Its cells.
        beats_sec: [B + 1] beat times.
        downbeat: [B + 1] 1 yes, 0 no, −1 unknown.
        repairs: What was changed in the beats.
    """

    row: PieceRow
    cells: Cells
    beats_sec: NDArray[np.float64]
    downbeat: NDArray[np.int8]
    repairs: Repairs


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


def manifest(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What the prepared data depends on besides the configuration and the code, for its fingerprint.

    Returns:
        Size and content hash of every input file under its path relative to the data's root, so that a folder
        that is moved stays the same; for the demo, which has no input, what determines its music.
    """
    data = cfg["data"]
    if data.get("source") == "demo":
        return {"composer": COMPOSER_VERSION, "seed": data.get("seed", 0), "pieces": piece_count(data)}
    with tempfile.TemporaryDirectory() as unused:
        collection = collect(data, Path(unused))
    return {collection.relative(path): _identity(path) for path in sorted(_input_files(collection))}


def select_records(records: Iterable[Record], data: Mapping[str, Any]) -> list[Record]:
    """The records of `data.kinds`, at most `data.limit` of each split chosen by `data.seed`, in stored order.

    Raises:
        UserError: A kind that does not exist, or nothing is left.
    """
    kinds = data.get("kinds") or list(KINDS)
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UserError(f"data.kinds={list(kinds)}: no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    limit, seed = data.get("limit"), data.get("seed", 0)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"data.limit={limit}: expected a number of files a split, at least 1, or null")
    kept = []
    wanted = [record for record in records if record.kind in kinds]
    for split in SPLITS:
        members = [record for record in wanted if record.split == split]
        if limit is not None:
            members = sorted(members, key=lambda record: shuffle_key(seed, record.id))[:limit]
        kept += sorted(members, key=lambda record: record.id)
    if not kept:
        raise UserError(f"data.kinds={list(kinds)}: no file of that kind in data.source={data.get('source')}")
    return kept


def read_records(records: Sequence[Record], score_velocity: bool, workers: int) -> Iterator[Prepared | str]:
    """Reads records in order, in this process or in several; the outcome is the same.

    Yields:
        The piece, or the reason why the file cannot be used.
    """
    if workers == 1 or len(records) <= _FEW_FILES:
        for record in records:
            yield read_record(record, score_velocity)
        return
    batches = (records[i : i + _BATCH] for i in range(0, len(records), _BATCH))
    # "spawn": a fork would copy the threads' locks of libraries that the caller has loaded.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[list[Prepared | str]]] = deque()
        for batch in batches:
            waiting.append(pool.submit(_read_batch, batch, score_velocity))
            if len(waiting) > 2 * workers:  # bounds what lies in memory if the writer is the slower side
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def read_record(record: Record, score_velocity: bool = False) -> Prepared | str:
    """One file as arrays, or a plain reason why it cannot be used."""
    try:
        piece = Piece.from_midi(record.midi_path, record.beats)
    except (UserError, OSError) as error:
        return str(error)
    if record.kind == "score" and not score_velocity:
        piece = piece.with_flat(True)
    cells = piece.cells
    row = PieceRow(
        id=record.id,
        source=record.source,
        composition=record.composition,
        split=record.split,
        kind=record.kind,
        flat=piece.flat,
        licence=record.licence,
        path=record.path,
        notes=cells.struck_notes,
        cells=len(cells),
        beats=piece.n_beats,
        segments=cells.segment_velocity.size,
        repaired=piece.repairs.any,
        merged_notes=piece.collisions.merged,
        cut_notes=piece.collisions.cut,
    )
    return Prepared(row, cells, piece.beats_sec, downbeat_flags(piece), piece.repairs)


def downbeat_flags(piece: Piece) -> NDArray[np.int8]:
    """[B + 1] 1 at the beat nearest to an annotated downbeat, 0 elsewhere, −1 where nothing is annotated."""
    beats = piece.beats_sec
    flags = np.full(beats.size, -1, np.int8)
    if piece.downbeats_sec is None:
        return flags
    flags[piece.repairs.ahead : beats.size - piece.repairs.behind] = 0
    # one that was merged into the last beat time may lie behind it
    flags[bar_starts(beats, np.clip(piece.downbeats_sec, beats[0], beats[-1]))] = 1
    return flags


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
        if repairs.any or max(repairs.ahead, repairs.behind) > _FAR_EXTENDED:
            changes = (repairs.reordered, repairs.merged, repairs.inserted, repairs.ahead, repairs.behind)
            self._repairs.append((path, row.beats, *changes))

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


def _read_batch(records: Sequence[Record], score_velocity: bool) -> list[Prepared | str]:
    return [read_record(record, score_velocity) for record in records]


def _worker_count(cfg: Mapping[str, Any]) -> int:
    """The value of `compute.workers`; null is one process a core."""
    workers = (cfg.get("compute") or {}).get("workers")
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(int(workers), 1)


def _input_files(collection: Collection) -> set[Path]:
    files = set(collection.tables)
    for record in collection.records:
        beats = record.beats if isinstance(record.beats, Path) else None
        if record.beats in ("auto", "file"):
            beats = beat_file_beside(record.midi_path)
        files |= {record.midi_path} if beats is None else {record.midi_path, beats}
    return files


def _identity(path: Path) -> list[int | str]:
    """Size and content hash of a file; a file that a data set lists but lacks has an identity too."""
    if not path.is_file():
        return [0, "missing"]
    content = path.read_bytes()
    return [len(content), hashlib.blake2b(content, digest_size=16).hexdigest()]


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _peak_rss_mb() -> float:
    """Largest memory that this process or one of its workers ever held."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
