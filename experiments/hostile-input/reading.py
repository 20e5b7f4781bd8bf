"""Reads mutants one by one in a process that may crash or hang, and says what is wrong with the results."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from population import LOSSY, SAME, Mutant

from experiments.written_pieces import differences_over_round_trips
from pianolm import Piece
from pianolm.child_process import start_worker
from pianolm.data.reading import ReadPiece, read_record
from pianolm.data.sources import Record
from pianolm.music.beats import MAX_BEAT_SEC, MAX_BEATS, MIN_BEAT_SEC

LIMIT_SEC = 20.0
"""A file that takes longer hangs. Generous, because the machine may be busy."""
_MEMORY_BYTES = 3 * 2**30
_STARTUP_SEC = 120.0
_TOLERANCE_SEC = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        reason: Why it was rejected; empty if it was used.
        problem: What is wrong: a crash, a hang, an unforeseen exception, or a wrong result; empty if nothing is.
        notes: Notes read.
        seconds: Time to read it, without the checks.
    """

    reason: str = ""
    problem: str = ""
    notes: int = 0
    seconds: float = 0.0


def read_all(mutants: Iterable[Mutant], folder: Path, originals: Path) -> Iterator[tuple[Mutant, Outcome]]:
    """Writes every mutant into a folder and reads it.

    Args:
        mutants: The mutants.
        folder: Where their files stay.
        originals: The folder of the originals (see `Original.write`).
    """
    reader = Reader(originals)
    try:
        for mutant in mutants:
            yield mutant, reader.read(mutant, mutant.write(folder))
    finally:
        reader.stop()


class Reader:
    """A process that reads files; another one takes its place when it crashes or hangs."""

    def __init__(self, originals: Path) -> None:
        self._originals = originals
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(other, self._originals), daemon=True)
        self._process.start()
        other.close()
        assert self._pipe.poll(_STARTUP_SEC), "the reader starts"
        self._pipe.recv()

    def read(self, mutant: Mutant, path: Path) -> Outcome:
        """Reads the files of a mutant."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send((path, mutant.family, mutant.may, mutant.original))
            if self._pipe.poll(LIMIT_SEC):
                return self._pipe.recv()
            problem = f"hangs: more than {LIMIT_SEC:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join()
            problem = f"crashes the reader: exit code {self._process.exitcode}"
        self.stop()
        return Outcome(problem=problem)

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Any, originals: Path) -> None:
    """The process that reads, with an upper limit on its memory."""
    start_worker()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    warnings.simplefilter("error")  # a warning is nothing that a user should see
    pipe.send("ready")
    while True:
        path, family, may, original = pipe.recv()
        pipe.send(
            outcome(
                path, family, may, originals / ("beats" if family == "beats" else ".") / f"{original}.mid"
            )
        )


def outcome(path: Path, family: str, may: str, original: Path) -> Outcome:
    """Reads a file as stage `prepare` does, and checks the result."""
    start = time.perf_counter()
    result = read_record(Record("folder", path.name, path, "auto", path.stem, "train"))
    seconds = time.perf_counter() - start
    if not isinstance(result, ReadPiece):
        problem = result.reason if result.reason.startswith("unexpected") or "\n" in result.reason else ""
        if may == SAME:
            problem = f"rejected, though its music is that of its original: {result.reason}"
        return Outcome(result.reason, problem, seconds=seconds)
    try:
        problem = wrong_result(Piece.from_midi(path), result, may, _original(original))
    except Exception as error:  # whatever the checks raise is a fault of the piece
        problem = f"checking it raised {error!r}"
    return Outcome("", problem, result.row.notes, seconds)


@cache
def _original(path: Path) -> Piece:
    return Piece.from_midi(path)


def wrong_result(piece: Piece, result: ReadPiece, may: str, original: Piece) -> str:
    """What is wrong with a piece that was used; empty if nothing is."""
    if found := broken_rule(piece, result):
        return found
    if may == SAME and (found := other_music(piece, original)):
        return f"other music than its original: {found}"
    if may == LOSSY and not piece.remarks.sentences() and (found := other_music(piece, original)):
        return f"something is missing and nothing is said: {found}"
    with tempfile.TemporaryDirectory() as folder:
        found = differences_over_round_trips(piece, Path(folder) / "again.mid", 2)
    return f"written and read again: {found[0]}" if found else ""


def broken_rule(piece: Piece, result: ReadPiece) -> str:
    """A rule for pieces that is broken; empty if none is."""
    notes, beats_sec = piece.notes, piece.beats_sec
    steps = np.diff(beats_sec)
    back = Piece.from_cells(piece.cells, beats_sec)
    rules = {
        "no notes": notes.size > 0,
        "times are not finite": bool(np.isfinite([notes["onset_sec"], notes["offset_sec"]]).all()),
        "a note ends before it starts": bool((notes["offset_sec"] >= notes["onset_sec"]).all()),
        "pitch or velocity out of range": notes["pitch"].max() <= 127
        and 1 <= notes["velocity"].min() <= notes["velocity"].max() <= 127,
        "beats outside 15–480 BPM": MIN_BEAT_SEC - _TOLERANCE_SEC
        < steps.min()
        <= steps.max()
        < MAX_BEAT_SEC + _TOLERANCE_SEC,
        "too many beats": piece.n_beats <= MAX_BEATS,
        "notes outside the grid": beats_sec[0] <= notes["onset_sec"].min() + _TOLERANCE_SEC
        and notes["offset_sec"].max() <= beats_sec[-1] + _TOLERANCE_SEC,
        "cells are not the notes": np.array_equal(back.frame_notes, piece.frame_notes),
        "the store has other notes": result.row.notes == piece.frame_notes.size
        and result.row.beats == piece.n_beats,
    }
    return next((name for name, holds in rules.items() if not holds), "")


def other_music(piece: Piece, original: Piece) -> str:
    """How the notes, beats and bars of two pieces differ; empty if they do not."""
    if piece.notes.size != original.notes.size:
        return f"{piece.notes.size} notes for {original.notes.size}"
    for field in ("onset_sec", "offset_sec"):
        if not np.allclose(piece.notes[field], original.notes[field], rtol=0, atol=_TOLERANCE_SEC):
            return f"another {field}"
    for field in ("pitch", "velocity"):
        if not np.array_equal(piece.notes[field], original.notes[field]):
            return f"another {field}"
    if piece.beats_sec.size != original.beats_sec.size or not np.allclose(
        piece.beats_sec, original.beats_sec, rtol=0, atol=_TOLERANCE_SEC
    ):
        return "other beats"
    return "" if np.array_equal(piece.bar_starts, original.bar_starts) else "other bars"
