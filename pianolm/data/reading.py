"""MIDI files of a data source as the arrays that a cell store takes."""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import SPLITS, PieceRow
from pianolm.data.sources import KINDS, Collection, Record, collect
from pianolm.data.sources.base import shuffle_key
from pianolm.data.sources.demo import COMPOSER_VERSION, piece_count
from pianolm.errors import UserError
from pianolm.music.bars import bar_starts
from pianolm.music.beats import Repairs, beat_file_beside
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece

_BATCH = 16


"""Files a worker reads at a time."""


_FEW_FILES = 1500


"""Up to here one process is done about as soon as others have started and imported what they need."""


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
    flags[piece.repairs.added_before : beats.size - piece.repairs.added_after] = 0
    # A downbeat merged into the last beat time may be later than it.
    flags[bar_starts(beats, np.clip(piece.downbeats_sec, beats[0], beats[-1]))] = 1
    return flags


def _read_batch(records: Sequence[Record], score_velocity: bool) -> list[Prepared | str]:
    return [read_record(record, score_velocity) for record in records]


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
