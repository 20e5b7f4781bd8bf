"""Reads the MIDI files of a data source into the arrays that a cell store takes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm import models
from pianolm.child_process import start_worker, workers_killed_on_error
from pianolm.data.cell_store import SPLITS, PieceRow
from pianolm.data.file_hashes import HASHES, FileHashes
from pianolm.data.file_progress import with_progress
from pianolm.data.sources import KINDS, Collection, Record, collect
from pianolm.data.sources.base import printable, shuffle_key
from pianolm.data.sources.demo import demo_manifest
from pianolm.data.works.note_sketch import NoteSketch, sketch_notes
from pianolm.errors import UserError
from pianolm.music.bars import bar_starts
from pianolm.music.beats import BEAT_FILE_ENDINGS, Repairs, beat_file_beside
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece
from pianolm.music.remarks import Remarks
from pianolm.music.tracks import Programs

_BATCH = 16
"""Files that a worker reads at a time."""
_ONE_PROCESS_FILES = 1500
"""Up to this many files one process is about as fast as starting workers, which import everything again."""


@dataclass(frozen=True)
class ReadPiece:
    """A file as read: the arrays that the store takes, small enough to send between processes.

    Attributes:
        row: Row of the store.
        cells: The cells.
        beats_sec: [B + 1] beat times.
        downbeat: [B + 1] 1 yes, 0 no, −1 unknown.
        repairs: Changes to the beats.
        remarks: What reading decided and left out.
        sketch: What finding the same music needs of the notes.
    """

    row: PieceRow
    cells: Cells
    beats_sec: NDArray[np.float64]
    downbeat: NDArray[np.int8]
    repairs: Repairs
    remarks: Remarks
    sketch: NoteSketch


@dataclass(frozen=True)
class ReadingOptions:
    """How files are read: the options of group `data` with these names (see `Piece.from_midi`).

    Attributes:
        score_velocity: Whether the velocities of scores count; else scores are marked flat.
        programs: "piano", "all", or General MIDI programs.
        pedal: "ignore" or "extend".
        default_tempo: "estimate", "use" or "reject".
        tracker: The beat tracker that estimates.
    """

    score_velocity: bool = False
    programs: Programs = "piano"
    pedal: str = "ignore"
    default_tempo: str = "estimate"
    tracker: str = models.BEATS

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ReadingOptions:
        """Takes the options from group `data` of the configuration."""
        return cls(**{field.name: data.get(field.name, field.default) for field in fields(cls)})


_DEFAULT_OPTIONS = ReadingOptions()


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be used, and why."""

    reason: str


def manifest(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The input of stage `prepare`, for its fingerprint.

    Returns:
        Size and content hash of every input file by its path relative to the data's root, so that the fingerprint of a
        folder does not change when it is moved. For the demo, which has no input, what determines its music.
    """
    data = cfg["data"]
    if data.get("source") == "demo":
        return demo_manifest(data)
    if work := (cfg.get("paths") or {}).get("work"):
        HASHES.keep_in(Path(work).absolute() / "hashes")
    with tempfile.TemporaryDirectory() as unused_cache, _without_garbage_collection():
        collection = collect(data, Path(unused_cache))
        return {
            f"{name}/{path}" if name else path: size_and_hash
            for name, part in collection.parts or (("", collection),)
            for path, size_and_hash in _hashed_inputs(part)
        }


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Python would go through the objects of tens of thousands of files many times, and none of them is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _hashed_inputs(part: Collection) -> Iterator[tuple[str, list[int | str]]]:
    """Path relative to the data set's root, size and content hash of each file that is read."""
    hashes, paths = HASHES.below(part.root), sorted(_input_files(part))
    for path in with_progress(paths, len(paths), "prepare: hashes"):
        known = part.hashed.get(path)
        yield part.relative(path), list(known) if known else _size_and_hash(path, hashes)
    hashes.save()


def select_records(records: Iterable[Record], data: Mapping[str, Any]) -> list[Record]:
    """The records of `data.kinds`, sorted by split and id; with `data.limit` a random choice of each split.

    Raises:
        UserError: A kind is unknown, the limit is no count, or no record is left.
    """
    kinds = data.get("kinds") or list(KINDS)
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UserError(f"data.kinds={list(kinds)}: {unknown[0]!r} found, expected {' or '.join(KINDS)}")
    limit, seed = data.get("limit"), data.get("seed", 0)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(
            f"data.limit={limit} found, expected a number of files per split of at least 1, or null"
        )
    selected = []
    of_kinds = [record for record in records if record.kind in kinds]
    for split in SPLITS:
        in_split = [record for record in of_kinds if record.split == split]
        if limit is not None:
            in_split = sorted(in_split, key=lambda record: shuffle_key(seed, record.id))[:limit]
        selected += sorted(in_split, key=lambda record: record.id)
    if not selected:
        raise UserError(f"data.kinds={list(kinds)}: no file of that kind in data.source={data.get('source')}")
    return selected


def read_records(
    records: Sequence[Record], options: ReadingOptions, workers: int
) -> Iterator[ReadPiece | Rejected]:
    """Reads records in order, in this process or in several with the same result.

    A file at which a worker process dies, such as by a fault of the MIDI library, is rejected.

    Args:
        records: Files to read.
        options: How to read them.
        workers: Number of processes.
    """
    if workers == 1 or len(records) <= _ONE_PROCESS_FILES:
        for record in records:
            yield read_record(record, options)
        return
    print(f"prepare: starts {workers} processes for {len(records):,} files", flush=True)
    unread = deque(records[i : i + _BATCH] for i in range(0, len(records), _BATCH))
    with workers_killed_on_error():
        while unread:
            try:
                yield from _read_in_pool(unread, options, workers)
            except BrokenProcessPool:  # at one of the first batches, which were being read
                for batch in [unread.popleft() for _ in range(min(2 * workers + 1, len(unread)))]:
                    yield from _read_one_by_one(batch, options)


def _pool(workers: int) -> ProcessPoolExecutor:
    # "spawn", because a fork would copy locked locks of libraries that the caller has loaded.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=start_worker)


def _read_in_pool(
    unread: deque[Sequence[Record]], options: ReadingOptions, workers: int
) -> Iterator[ReadPiece | Rejected]:
    """Reads batches, which leave `unread` once their results are there; at most 2 · workers + 1 are read ahead."""
    with _pool(workers) as pool:
        pending: deque[Future[list[ReadPiece | Rejected]]] = deque()
        while unread:
            for batch in islice(
                unread, len(pending), 2 * workers + 1
            ):  # bounds the memory if the writer is slower
                pending.append(pool.submit(_read_batch, batch, options))
            results = pending.popleft().result()
            unread.popleft()
            yield from results


def _read_one_by_one(batch: Sequence[Record], options: ReadingOptions) -> Iterator[ReadPiece | Rejected]:
    """Reads records in a process of their own, another one after each at which it dies."""
    unread = deque(batch)
    while unread:
        with _pool(1) as pool:
            try:
                while unread:
                    result = pool.submit(read_record, unread[0], options).result()
                    unread.popleft()
                    yield result
            except BrokenProcessPool:
                unread.popleft()
                yield Rejected(
                    "the process that read it crashed; the file is damaged in a way that is not recognised"
                )


def read_record(record: Record, options: ReadingOptions = _DEFAULT_OPTIONS) -> ReadPiece | Rejected:
    """Reads one file; see `read_records`.

    Any error rejects this file only: a damaged file must not stop the files after it.
    """
    try:
        return _read(record, options)
    except UserError as error:
        return Rejected(printable(str(error)))
    except OSError as error:
        return Rejected(f"cannot be read: {error.strerror or type(error).__name__}")
    except Exception as error:
        message = str(error).partition("\n")[0]
        return Rejected(printable(f"unexpected {type(error).__name__} while reading: {message}"))


def read_piece(record: Record, options: ReadingOptions) -> Piece:
    """Reads the music of one file.

    Raises:
        UserError: The file or its beats cannot be used.
    """
    piece = Piece.from_midi(
        record.midi_path,
        record.beats,
        programs=options.programs,
        pedal=options.pedal,
        default_tempo=options.default_tempo,
        tracker=options.tracker,
    )
    return piece.with_flat(True) if record.kind == "score" and not options.score_velocity else piece


def _read(record: Record, options: ReadingOptions) -> ReadPiece:
    piece = read_piece(record, options)
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
        attribution=record.attribution,
        beat_confidence=piece.remarks.beat_confidence,
    )
    sketch = sketch_notes(piece.notes)
    return ReadPiece(row, cells, piece.beats_sec, downbeat_flags(piece), piece.repairs, piece.remarks, sketch)


def downbeat_flags(piece: Piece) -> NDArray[np.int8]:
    """[B + 1] 1 at the beat nearest to an annotated downbeat, 0 at other annotated beats, −1 elsewhere."""
    beats = piece.beats_sec
    flags = np.full(beats.size, -1, np.int8)
    if piece.downbeats_sec is None:
        return flags
    flags[piece.repairs.added_before : beats.size - piece.repairs.added_after] = 0
    # A downbeat merged into the last beat time may be later than it.
    flags[bar_starts(beats, np.clip(piece.downbeats_sec, beats[0], beats[-1]))] = 1
    return flags


def _read_batch(records: Sequence[Record], options: ReadingOptions) -> list[ReadPiece | Rejected]:
    return [read_record(record, options) for record in records]


def _input_files(collection: Collection) -> set[str]:
    """The tables, MIDI files and beat files. Of a folder its names are listed once, not looked for one by one."""
    files, stems_of = {os.fspath(path) for path in collection.tables}, dict[str, set[str]]()
    for record in collection.records:
        midi = os.fspath(record.midi_path)
        files.add(midi)
        if isinstance(record.beats, Path):
            files.add(os.fspath(record.beats))
        elif record.beats in ("auto", "file"):
            folder, _, name = midi.rpartition(os.sep)
            if folder not in stems_of:
                stems_of[folder] = _stems_with_beat_file(folder)
            if stems_of[folder] and os.path.splitext(name)[0] in stems_of[folder]:
                files |= {os.fspath(beats) for beats in [beat_file_beside(midi)] if beats}
    return files


def _stems_with_beat_file(folder: str) -> set[str]:
    """Names, without extension, of which the folder holds a beat file."""
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:
        return set()
    return {
        name.removesuffix(ending) for name in names for ending in BEAT_FILE_ENDINGS if name.endswith(ending)
    }


def _size_and_hash(path: str, hashes: FileHashes) -> list[int | str]:
    """Size and content hash of a file; a listed file that is missing or cannot be read has size 0."""
    try:
        return list(hashes.of(path))
    except (FileNotFoundError, NotADirectoryError):
        return [0, "missing"]
    except OSError:
        return [0, "unreadable"]
