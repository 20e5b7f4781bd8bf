"""The cell store: the cells, beats and velocities of every piece of a data set in flat memory-mapped arrays.

Files of a store, all arrays of all pieces one after the other, pieces sorted by split:
`beats_sec.npy` f64 and `downbeat.npy` i8 (B + 1 a piece; downbeat 1 yes, 0 no, −1 unknown), `beat.npy` i32,
`pitch.npy` u8, `sustain.npy` u64 and `onset.npy` u64 (C a piece), `segment_velocity.npy` u8 (S a piece),
`pieces.csv` one row a piece, and `store.json`, written last: without it the store is unfinished.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pianolm.errors import UserError
from pianolm.music.cells import Cells

FORMAT, FORMAT_VERSION = "pianolm cells", 1
SPLITS = ("train", "validation", "test")
_CELL_ARRAYS = {"beat": np.int32, "pitch": np.uint8, "sustain": np.uint64, "onset": np.uint64}
_ARRAYS = {**_CELL_ARRAYS, "segment_velocity": np.uint8, "beats_sec": np.float64, "downbeat": np.int8}
_MARKER = "store.json"


@dataclass(frozen=True)
class PieceRow:
    """What is known of one piece.

    Attributes:
        id: Unique name.
        source: Data set.
        composition: Same for all versions of a composition.
        split: train, validation or test.
        kind: performance or score.
        flat: Whether the velocities say nothing, so that no loss is taken on them.
        licence: What the data set says about use.
        path: Of the MIDI file, relative to the data set's root.
        notes: Struck notes on the grid.
        cells: Active cells.
        beats: Beats of the grid; there is one beat time more.
        segments: Velocity segments.
        repaired: Whether beats were sorted, merged or put in between.
        merged_notes: Notes that the grid made one with another.
        cut_notes: Notes that end early as their key is struck again.
    """

    id: str
    source: str
    composition: str
    split: str
    kind: str
    flat: bool
    licence: str
    path: str
    notes: int
    cells: int
    beats: int
    segments: int
    repaired: bool = False
    merged_notes: int = 0
    cut_notes: int = 0


class NpyStream:
    """A one-dimensional .npy file that grows; its header tells the length once it is closed."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file: BinaryIO = path.open("wb")
        self._count = 0
        self._header_bytes = self._write_header()

    def append(self, values: NDArray[Any]) -> None:
        """Adds values [N]."""
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self._count += values.size

    def close(self) -> None:
        """Writes the length into the header."""
        self._file.seek(0)
        written = self._write_header()
        assert written == self._header_bytes, "numpy pads the header, so that the length can grow in place"
        self._file.close()

    def _write_header(self) -> int:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


class CellStoreWriter:
    """Writes a store piece by piece; what it keeps in memory does not grow with the data.

    Use as a context manager; the store is whole when the block is left without an exception.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._streams = {name: NpyStream(directory / f"{name}.npy", kind) for name, kind in _ARRAYS.items()}
        self._file = (directory / "pieces.csv").open("w", encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._file, [field.name for field in fields(PieceRow)])
        self._table.writeheader()
        self._split = SPLITS[0]
        self._count = 0

    def add(
        self, row: PieceRow, cells: Cells, beats_sec: NDArray[np.float64], downbeat: NDArray[np.int8]
    ) -> None:
        """Appends a piece; its split is not before that of the piece added last.

        Args:
            row: What is known of it; its counts agree with the arrays.
            cells: Its C cells.
            beats_sec: [B + 1] beat times.
            downbeat: [B + 1] 1, 0, or −1 where unknown.
        """
        assert SPLITS.index(row.split) >= SPLITS.index(self._split), "pieces come in the order of SPLITS"
        assert beats_sec.size == downbeat.size == cells.n_beats + 1 == row.beats + 1, (
            "one time more than beats"
        )
        assert (row.cells, row.segments) == (len(cells), cells.segment_velocity.size), "counts of the row"
        self._split = row.split
        self._count += 1
        for name in _CELL_ARRAYS:
            self._streams[name].append(getattr(cells, name))
        self._streams["segment_velocity"].append(cells.segment_velocity)
        self._streams["beats_sec"].append(beats_sec)
        self._streams["downbeat"].append(downbeat)
        self._table.writerow({**asdict(row), "flat": int(row.flat), "repaired": int(row.repaired)})

    def __enter__(self) -> CellStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()
        self._file.close()
        if error is None:
            marker = {"format": FORMAT, "version": FORMAT_VERSION, "pieces": self._count}
            (self._directory / _MARKER).write_text(json.dumps(marker), "utf-8")


class CellStore:
    """Read access to a store; arrays are mapped, not loaded.

    Attributes:
        directory: Where it lies.
        pieces: [P] rows in stored order, sorted by split.
        cell_offset: [P + 1] int64, where each piece's cells begin in the flat arrays.
        segment_offset: [P + 1] int64, where its segment velocities begin.
        beat_offset: [P + 1] int64, where its beat times begin.
    """

    def __init__(self, directory: Path, pieces: list[PieceRow], arrays: dict[str, NDArray[Any]]) -> None:
        self.directory = directory
        self.pieces = pieces
        self._arrays = arrays
        self.cell_offset = _offsets(row.cells for row in pieces)
        self.segment_offset = _offsets(row.segments for row in pieces)
        self.beat_offset = _offsets(row.beats + 1 for row in pieces)

    @classmethod
    def open(cls, directory: str | Path) -> CellStore:
        """Opens a store.

        Raises:
            UserError: The directory holds no whole store of this format version.
        """
        directory = Path(directory)
        check_marker(directory / _MARKER, FORMAT, FORMAT_VERSION, "prepare")
        with (directory / "pieces.csv").open(encoding="utf-8", newline="") as file:
            pieces = [_parse_row(row) for row in csv.DictReader(file)]
        arrays = {name: map_array(directory / f"{name}.npy") for name in _ARRAYS}
        store = cls(directory, pieces, arrays)
        ends = dict.fromkeys(_CELL_ARRAYS, store.cell_offset[-1])
        ends |= dict.fromkeys(("beats_sec", "downbeat"), store.beat_offset[-1])
        ends |= {"segment_velocity": store.segment_offset[-1]}
        wrong = [name for name, end in ends.items() if arrays[name].shape != (end,)]
        if wrong:
            raise UserError(f"{directory}: {wrong[0]}.npy does not fit pieces.csv; run stage=prepare again")
        return store

    def __len__(self) -> int:
        return len(self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is handed the store maps the files itself: nothing large is copied.
        return CellStore.open, (self.directory,)

    def split(self, name: str) -> list[int]:
        """Indices of the pieces of a split, a run without gaps."""
        assert name in SPLITS, name
        return [index for index, row in enumerate(self.pieces) if row.split == name]

    def cells(self, index: int) -> Cells:
        """The cells of one piece, as views into the mapped files."""
        part = slice(self.cell_offset[index], self.cell_offset[index + 1])
        segments = slice(self.segment_offset[index], self.segment_offset[index + 1])
        columns = {name: self._arrays[name][part] for name in _CELL_ARRAYS}
        velocity = self._arrays["segment_velocity"][segments]
        return Cells(**columns, segment_velocity=velocity, n_beats=self.pieces[index].beats)

    def beats_sec(self, index: int) -> NDArray[np.float64]:
        """[B + 1] beat times of one piece."""
        return self._arrays["beats_sec"][self.beat_offset[index] : self.beat_offset[index + 1]]

    def downbeat(self, index: int) -> NDArray[np.int8]:
        """[B + 1] 1 at the first beat of a bar, 0 elsewhere, −1 where unknown."""
        return self._arrays["downbeat"][self.beat_offset[index] : self.beat_offset[index + 1]]

    def bar_starts(self, index: int) -> NDArray[np.intp]:
        """[D] the beats at which a bar of one piece begins, none where no downbeat is known."""
        return np.flatnonzero(self.downbeat(index) == 1)

    def flat(self, index: int) -> bool:
        """Whether the velocities of one piece say nothing."""
        return self.pieces[index].flat

    def joined(self, indices: Sequence[int]) -> Cells:
        """The cells of several pieces one after the other, beats counted on from piece to piece.

        Pieces that lie together (a whole split) come as views into the mapped files, except for `beat`.
        """
        beats = np.array([self.pieces[i].beats for i in indices], np.int64)
        start = np.repeat(np.cumsum(beats) - beats, [self.pieces[i].cells for i in indices])
        columns = {name: self._gather(name, self.cell_offset, indices) for name in _CELL_ARRAYS}
        columns["beat"] = (columns["beat"] + start).astype(np.int32)
        velocity = self._gather("segment_velocity", self.segment_offset, indices)
        return Cells(**columns, segment_velocity=velocity, n_beats=int(beats.sum()))

    def piece_of_cell(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """[C] index of the piece that each cell of `joined(indices)` belongs to."""
        return np.repeat(np.asarray(indices, np.int64), [self.pieces[i].cells for i in indices])

    def _gather(self, name: str, offset: NDArray[np.int64], indices: Sequence[int]) -> NDArray[Any]:
        array, runs = self._arrays[name], _runs(indices)
        parts = [array[offset[first] : offset[last + 1]] for first, last in runs]
        return parts[0] if len(parts) == 1 else np.concatenate([array[:0], *parts])


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive indices as (first, last)."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def _offsets(counts: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.fromiter(counts, np.int64))]).astype(np.int64)


def map_array(path: Path) -> NDArray[Any]:
    """Maps a .npy file.

    Raises:
        UserError: It is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: missing from the store; build it again with force=true")
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError as error:
        if "empty" not in str(error):
            message = f"{path}: cut off or damaged ({error}); build it again with force=true"
            raise UserError(message) from error
        return np.load(path)  # an array of length 0 cannot be mapped


def check_marker(marker: Path, name: str, version: int, stage: str) -> None:
    """Holds the file that makes a store whole against what is expected.

    Raises:
        UserError: It is missing, or of another format or version.
    """
    if not marker.is_file():
        raise UserError(
            f"{marker.parent}: no {marker.name}, so this holds no {name} or unfinished ones; "
            f"expected a directory published by stage={stage}"
        )
    try:
        found = json.loads(marker.read_text("utf-8"))
        what = (found["format"], found["version"])
    except (ValueError, KeyError, TypeError):
        what = ("something else", "?")
    if what != (name, version):
        raise UserError(
            f"{marker}: {what[0]} of version {what[1]} found, expected {name} of version {version}; "
            f"run stage={stage}"
        )


def _parse_row(row: dict[str, str]) -> PieceRow:
    """A row of pieces.csv with its numbers and flags back as such."""
    parsed: dict[str, Any] = dict(row)
    for field in fields(PieceRow):
        if field.type in ("int", "bool"):
            number = int(row[field.name])
            parsed[field.name] = bool(number) if field.type == "bool" else number
    return PieceRow(**parsed)
