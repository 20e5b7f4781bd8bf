"""The cell store: cells, beats and velocities of every piece of a data set in flat memory-mapped arrays.

Each array file holds the values of all pieces one after another, pieces sorted by split. A piece of B beats, C cells
and S velocity segments takes

* B + 1 values of `beats_sec.npy` (float64) and of `downbeat.npy` (int8: 1 yes, 0 no, −1 unknown),
* C values of `beat.npy` (int32), `pitch.npy` (uint8), `sustain.npy` and `onset.npy` (uint64),
* S values of `segment_velocity.npy` (uint8),
* a row of `pieces.csv`.

`store.json` is written last: a store without it is incomplete.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pianolm.data.store_files import NpyWriter, map_array, read_marker
from pianolm.errors import UserError
from pianolm.music.cells import Cells

FORMAT, FORMAT_VERSION = "pianolm cells", 1
SPLITS = ("train", "validation", "test")
_CELL_ARRAYS = {"beat": np.int32, "pitch": np.uint8, "sustain": np.uint64, "onset": np.uint64}
_ARRAYS = {**_CELL_ARRAYS, "segment_velocity": np.uint8, "beats_sec": np.float64, "downbeat": np.int8}
_MARKER, _STAGE = "store.json", "prepare"


@dataclass(frozen=True)
class PieceRow:
    """Metadata and sizes of one piece.

    Attributes:
        id: Unique name.
        source: Data set.
        composition: Same for all versions of a composition.
        split: train, validation or test.
        kind: performance or score.
        flat: Whether the velocities are flat, so that no loss is taken on them.
        licence: Licence that the data set states.
        path: MIDI file, relative to the data set's root.
        notes: Number of struck notes on the grid.
        cells: Number of active cells.
        beats: Number of beats of the grid; there is one more beat time.
        segments: Number of velocity segments.
        repaired: Whether beats were reordered, merged or inserted.
        merged_notes: Number of notes that start in the same frame as another of their pitch.
        cut_notes: Number of notes that end early because their key is struck again.
        attribution: Whom the licence asks to name.
        beat_confidence: How sure the beats are, 0–1, if they were estimated from the notes; else None.
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
    attribution: str = ""
    beat_confidence: float | None = None


class CellStoreWriter:
    """Writes a store piece by piece; only one piece is in memory at a time.

    Use as a context manager; the store is complete when the block ends without an exception.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._files = {name: NpyWriter(directory / f"{name}.npy", dtype) for name, dtype in _ARRAYS.items()}
        self._csv = (directory / "pieces.csv").open("w", encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._csv, [field.name for field in fields(PieceRow)])
        self._table.writeheader()
        self._split = SPLITS[0]
        self._count = 0

    def add(
        self, row: PieceRow, cells: Cells, beats_sec: NDArray[np.float64], downbeat: NDArray[np.int8]
    ) -> None:
        """Appends a piece. Pieces come in the order of `SPLITS`.

        Args:
            row: Metadata; its sizes agree with the arrays.
            cells: The C cells.
            beats_sec: [B + 1] beat times.
            downbeat: [B + 1] 1, 0, or −1 where unknown.
        """
        assert SPLITS.index(row.split) >= SPLITS.index(self._split), "pieces come in the order of SPLITS"
        assert beats_sec.size == downbeat.size == cells.n_beats + 1 == row.beats + 1, "B + 1 beat times"
        assert (row.cells, row.segments) == (len(cells), cells.segment_velocity.size), "sizes of the row"
        self._split = row.split
        self._count += 1
        for name in _CELL_ARRAYS:
            self._files[name].append(getattr(cells, name))
        self._files["segment_velocity"].append(cells.segment_velocity)
        self._files["beats_sec"].append(beats_sec)
        self._files["downbeat"].append(downbeat)
        self._table.writerow({**asdict(row), "flat": int(row.flat), "repaired": int(row.repaired)})

    def __enter__(self) -> CellStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        self._csv.close()
        if error is None:
            marker = {"format": FORMAT, "version": FORMAT_VERSION, "pieces": self._count}
            (self._directory / _MARKER).write_text(json.dumps(marker), "utf-8")


class CellStore:
    """Read access to a store; arrays are mapped, not loaded.

    Attributes:
        directory: Directory of the store.
        pieces: [P] rows in stored order, sorted by split.
        cell_offset: [P + 1] int64, index of each piece's first cell in the flat arrays.
        segment_offset: [P + 1] int64, index of its first segment velocity.
        beat_offset: [P + 1] int64, index of its first beat time.
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
            UserError: The directory holds no complete store of this format version.
        """
        directory = Path(directory)
        read_marker(directory / _MARKER, FORMAT, FORMAT_VERSION, _STAGE)
        with (directory / "pieces.csv").open(encoding="utf-8", newline="") as file:
            pieces = [_parse_row(row) for row in csv.DictReader(file)]
        arrays = {name: map_array(directory / f"{name}.npy", _STAGE) for name in _ARRAYS}
        store = cls(directory, pieces, arrays)
        sizes = dict.fromkeys(_CELL_ARRAYS, store.cell_offset[-1])
        sizes |= dict.fromkeys(("beats_sec", "downbeat"), store.beat_offset[-1])
        sizes |= {"segment_velocity": store.segment_offset[-1]}
        for name, size in sizes.items():
            if arrays[name].shape != (size,):
                raise UserError(
                    f"{directory / name}.npy: {arrays[name].size} values found, expected {size} as pieces.csv says; "
                    "run stage=prepare force=true"
                )
        return store

    def __len__(self) -> int:
        return len(self.pieces)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as its path: another process maps the files itself, and no array is copied.
        return CellStore.open, (self.directory,)

    def split(self, name: str) -> list[int]:
        """Indices of the pieces of a split; they are consecutive."""
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
        """[D] beats at which the bars of one piece begin; empty where no downbeat is known."""
        return np.flatnonzero(self.downbeat(index) == 1)

    def flat(self, index: int) -> bool:
        """Whether the velocities of one piece are flat."""
        return self.pieces[index].flat

    def joined(self, indices: Sequence[int]) -> Cells:
        """The cells of several pieces one after another; beats are counted on from piece to piece.

        The arrays of consecutive pieces (a whole split) are views into the mapped files, except for `beat`.
        """
        beats = np.array([self.pieces[i].beats for i in indices], np.int64)
        start = np.repeat(np.cumsum(beats) - beats, [self.pieces[i].cells for i in indices])
        columns = {name: self._gather(name, self.cell_offset, indices) for name in _CELL_ARRAYS}
        columns["beat"] = (columns["beat"] + start).astype(np.int32)
        velocity = self._gather("segment_velocity", self.segment_offset, indices)
        return Cells(**columns, segment_velocity=velocity, n_beats=int(beats.sum()))

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


def _parse_row(row: dict[str, str]) -> PieceRow:
    """A row of pieces.csv with its numbers and flags converted."""
    parsed: dict[str, Any] = dict(row)
    for field in fields(PieceRow):
        if field.type in ("int", "bool"):
            number = int(row[field.name])
            parsed[field.name] = bool(number) if field.type == "bool" else number
    confidence = row.get("beat_confidence")  # stores of older versions have no such column
    parsed["beat_confidence"] = float(confidence) if confidence else None
    return PieceRow(**parsed)
