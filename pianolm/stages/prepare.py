"""Stage `prepare`: reads a data source into a cell store with splits and flat-velocity flags.

Reads `data.*` and `compute.workers`. Publishes the store (see `pianolm.data.cell_store`; `pieces.csv` has the licence
and attribution of each piece), `rejects.csv` (files that could not be used, and why), `excluded.csv` (works left
out, and why), `works.csv` (the work and split of each piece: see `pianolm.data.works.grouping`), `repairs.csv` (pieces
whose beats were repaired or extended far), `remarks.csv` (what was decided and left out in reading: see
`pianolm.music.remarks`; like repairs with the data set of each file), and for the demo the composed files (`midi/`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolm.data.cell_store import SPLITS, CellStore, CellStoreWriter
from pianolm.data.file_progress import with_progress
from pianolm.data.kept_results import KeptResults
from pianolm.data.licences import licence_ids
from pianolm.data.prepare_report import PrepareReport
from pianolm.data.reading import ReadingOptions, ReadPiece, Rejected, manifest, read_records, select_records
from pianolm.data.sources import collect
from pianolm.data.works.grouping import PieceWork, group_pieces, read_corrections, unknown_pieces
from pianolm.errors import UserError
from pianolm.music.beat_estimation import load_tracker
from pianolm.stage import Metrics, Stage, StageContext


def run(ctx: StageContext) -> Metrics:
    """Reads every record of the data source into the cell store at `ctx.out`.

    Raises:
        UserError: The source's folder is missing or of another layout, or none of its files can be used.
    """
    data = ctx.cfg["data"]
    collection = collect(data, ctx.out / "midi")
    records = select_records(collection.records, data)
    report = PrepareReport(collection)
    options, workers = ReadingOptions.of(data), _worker_count(ctx.cfg)
    kept = KeptResults[ReadPiece | Rejected](ctx.work, [record.id for record in records], ctx.cfg)
    if kept.count:
        print(
            f"prepare: goes on; an earlier run has read {kept.count:,} of {len(records):,} files", flush=True
        )
    corrections = read_corrections(data.get("works"))
    if line := unknown_pieces(corrections, collection.records):
        print(f"prepare: {line}", flush=True)
    start = time.perf_counter()
    results = kept.complete(lambda missing: read_records([records[i] for i in missing], options, workers))
    shown = with_progress(results, len(records), "prepare: reads")
    sketches = [result.sketch if isinstance(result, ReadPiece) else None for result in shown]
    works = group_pieces(records, sketches, corrections)
    order = sorted(range(len(records)), key=lambda i: (SPLITS.index(works[i].split), i))
    with CellStoreWriter(ctx.out) as store:
        for i, result in zip(order, kept.select(order), strict=True):
            if isinstance(result, ReadPiece):
                result = _in_work(result, works[i])
                store.add(result.row, result.cells, result.beats_sec, result.downbeat)
            report.add(records[i], result, works[i])
    report.write(ctx.out)
    if not report.any_usable:
        raise UserError(report.no_usable_file())
    for line in report.lines():
        print(f"prepare: {line}", flush=True)
    if ctx.cfg.get("stage", {}).get("name") == "prepare":
        print("prepare: stage=plot plot=data with the same options shows and plays it", flush=True)
    return report.metrics(time.perf_counter() - start, kept.count)


def _in_work(piece: ReadPiece, work: PieceWork) -> ReadPiece:
    """A piece as read, with the id and the split of its work."""
    return replace(piece, row=replace(piece.row, composition=work.work, split=work.split))


def _worker_count(cfg: Mapping[str, Any]) -> int:
    """The value of `compute.workers`; null is one process per core."""
    workers = (cfg.get("compute") or {}).get("workers")
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(int(workers), 1)


def _settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    # Where folders and tables lie determines nothing; the manifest says what is used of them.
    neutral = ("root", "parts", "exclude", "licences", "works", "tracker")
    data = cfg["data"]
    tracker = {"tracker": load_tracker(data["tracker"]).fingerprint} if _may_estimate(data) else {}
    return {
        "data": {key: value for key, value in data.items() if key not in neutral},
        "manifest": manifest(cfg),
        "works": read_corrections(data.get("works")),
        **tracker,
    }


def _may_estimate(data: Mapping[str, Any]) -> bool:
    """Whether the beats of a file may be estimated."""
    return data["beats"] == "estimate" or (data["beats"] == "auto" and data["default_tempo"] == "estimate")


def _check(cfg: Mapping[str, Any]) -> None:
    """Raises `UserError` where beats are to be estimated and there is no tracker."""
    if _may_estimate(cfg["data"]):
        load_tracker(cfg["data"]["tracker"])


def _licences(directory: Path) -> list[str]:
    """Licences of the pieces in a published store."""
    return licence_ids(row.licence for row in CellStore.open(directory).pieces)


STAGE = Stage(
    run,
    "Data source to cell store with splits.",
    settings=_settings,
    version=8,
    check=_check,
    licences=_licences,
)
