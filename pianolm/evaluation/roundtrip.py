"""`evaluate=roundtrip`: differences between MIDI files and what their ids decode to, in frames, seconds and velocities.

Reads the MIDI files themselves, so that MIDI → ids → notes is measured without the cell store and the data source
needs no training split.

Shapes: N notes of a piece, M notes whose onset is decoded and shared with no other note, E exact notes, B beats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.csv_file import write_csv
from pianolm.data.reading import ReadingOptions, read_piece, select_records
from pianolm.data.sources import Record, collect
from pianolm.errors import UserError
from pianolm.evaluation.measure import Measure
from pianolm.evaluation.selection import performances
from pianolm.music.cells import FrameNotes, frames_to_seconds, seconds_to_frames
from pianolm.music.piece import Piece
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS

REASONS = ("merged", "cut", "other")
"""Why a note is not decoded exactly: another note of its pitch starts in its frame and lasts at least as long; its key
is struck again before it ends; anything else, which would be a bug."""
_EXACT = -1


class Roundtrip(NamedTuple):
    """Differences between a piece and what its ids decode to.

    Attributes:
        tokens: Number of ids.
        codes: Number of pattern codes among them.
        cells: Number of active cells.
        lost: [N] int8, −1 for a note that is decoded exactly, else an index into `REASONS`.
        onset: [N] int64, frame of the note's onset in the file.
        end: [N] int64, frame of its end in the file.
        decoded_end: [N] int64, end of the decoded note of the same pitch and onset, −1 if there is none.
        onset_error_sec: [M] |decoded − original| of onsets.
        offset_error_sec: [E] |decoded − original| of the ends of exact notes.
        beat_error_sec: [B] |decoded − original| of beats after the first.
        velocity_error: [M] |decoded − original| in MIDI units.
    """

    tokens: int
    codes: int
    cells: int
    lost: NDArray[np.int8]
    onset: NDArray[np.int64]
    end: NDArray[np.int64]
    decoded_end: NDArray[np.int64]
    onset_error_sec: NDArray[np.float64]
    offset_error_sec: NDArray[np.float64]
    beat_error_sec: NDArray[np.float64]
    velocity_error: NDArray[np.int64]


def roundtrip(tokenizer: PianoTokenizer, piece: Piece) -> Roundtrip:
    """Encodes a piece, decodes the ids, and compares with the notes of the file.

    Seconds are counted from the first beat of each, since tokens have no absolute time.
    """
    ids = tokenizer.encode(piece).ids
    decoded = tokenizer.decode(ids)
    notes, frames = piece.notes, decoded.frame_notes
    onset = seconds_to_frames(notes["onset_sec"], piece.beats_sec)
    end = np.maximum(seconds_to_frames(notes["offset_sec"], piece.beats_sec), onset + 1)
    match = _match(notes["pitch"], onset, frames)
    decoded_end = np.where(match >= 0, frames["end"][match], -1) if frames.size else np.full(onset.size, -1)
    lost = _explain(notes["pitch"], onset, end, decoded_end)
    unshared = np.flatnonzero((match >= 0) & ~_shared(notes["pitch"], onset))
    exact = np.flatnonzero(lost == _EXACT)
    start_sec = piece.beats_sec[0] - decoded.beats_sec[0]
    kinds = tokenizer.vocabulary.kind_of[ids]

    def error(frame: NDArray[np.int64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs(frames_to_seconds(frame, decoded.beats_sec) + start_sec - second)

    return Roundtrip(
        tokens=ids.size,
        codes=int(np.isin(kinds, [int(kind) for kind in CODE_KINDS]).sum()),
        cells=len(decoded.cells),
        lost=lost,
        onset=onset,
        end=end,
        decoded_end=decoded_end,
        onset_error_sec=error(onset[unshared], notes["onset_sec"][unshared]),
        offset_error_sec=error(end[exact], notes["offset_sec"][exact]),
        beat_error_sec=np.abs(decoded.beats_sec + start_sec - piece.beats_sec)[1:],
        velocity_error=np.abs(
            notes["velocity"][unshared].astype(np.int64)
            - frames["velocity"][match[unshared]].astype(np.int64)
        ),
    )


def _match(pitch: NDArray[np.uint8], onset: NDArray[np.int64], frames: FrameNotes) -> NDArray[np.int64]:
    """[N] index of the decoded note of the same pitch and onset frame, −1 if there is none."""
    key_N = _key(pitch, onset)
    decoded_keys = _key(frames["pitch"], frames["onset"])  # sorted and unique
    if not decoded_keys.size:
        return np.full(key_N.size, -1)
    at = np.minimum(np.searchsorted(decoded_keys, key_N), decoded_keys.size - 1)
    return np.where(decoded_keys[at] == key_N, at, -1)


def _key(pitch: NDArray[np.uint8], onset: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each pitch and onset frame, ordered by pitch."""
    return pitch.astype(np.int64) << 40 | onset


def _shared(pitch: NDArray[np.uint8], onset: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N] whether another note has the same pitch and onset frame."""
    _, inverse, count = np.unique(_key(pitch, onset), return_inverse=True, return_counts=True)
    shared: NDArray[np.bool_] = count[inverse] > 1
    return shared


def _explain(
    pitch: NDArray[np.uint8],
    onset: NDArray[np.int64],
    end: NDArray[np.int64],
    decoded_end: NDArray[np.int64],
) -> NDArray[np.int8]:
    """[N] −1 for notes that are decoded exactly, else the reason why not; of equal notes only one is exact."""
    _, first = np.unique(np.stack([pitch, onset, end]), axis=1, return_index=True)
    is_first = np.zeros(onset.size, bool)
    is_first[first] = True
    exact = (decoded_end == end) & is_first
    shared = _shared(pitch, onset)
    cut = (decoded_end >= 0) & (decoded_end < end)
    kinds = [_EXACT, REASONS.index("merged"), REASONS.index("cut")]
    return np.select([exact, shared, cut], kinds, REASONS.index("other")).astype(np.int8)


@dataclass(frozen=True)
class RecordRead:
    """A record and its piece, or the reason why the file cannot be used."""

    record: Record
    piece: Piece | None
    reason: str = ""


def read_performances(ctx: StageContext) -> Iterator[RecordRead]:
    """Reads the performances of `data.*` in `evaluate.split`, one at a time."""
    data = ctx.cfg["data"]
    records = select_records(collect(data, ctx.work / "midi").records, data)
    options = ReadingOptions.of(data)
    for record in (records[index] for index in performances(records, ctx.cfg)):
        try:
            yield RecordRead(record, read_piece(record, options))
        except (UserError, OSError) as error:
            yield RecordRead(record, None, str(error))


def run(ctx: StageContext) -> Metrics:
    """Measures, and writes `pieces.csv`, `lost_notes.csv` and `rejects.csv` to the run directory.

    Raises:
        UserError: The tokenizer or the data cannot be used, or no file can be read.
    """
    tokenizer = PianoTokenizer.from_pretrained(ctx.upstream["tokenizer"])
    results: list[Roundtrip] = []
    velocity_errors = []
    pieces, lost, rejects = [], [], []
    for read in read_performances(ctx):
        if read.piece is None:
            rejects.append((read.record.path, read.reason))
            continue
        result = roundtrip(tokenizer, read.piece)
        results.append(result)
        if tokenizer.codec is not None and not read.piece.flat:
            velocity_errors.append(result.velocity_error)
        pieces.append(_piece_row(read.record, result))
        lost += _lost_rows(read.record, read.piece, result)
    if not results:
        raise UserError(
            f"none of {len(rejects)} files can be used, the first: {': '.join(rejects[0])}; repair it, or select "
            "other files with data.* and evaluate.split"
        )
    write_csv(ctx.run_dir / "pieces.csv", _PIECE_COLUMNS, pieces)
    write_csv(ctx.run_dir / "lost_notes.csv", _LOST_COLUMNS, lost)
    write_csv(ctx.run_dir / "rejects.csv", ("path", "reason"), rejects)
    return {"pieces": len(results), "rejected": len(rejects), **_metrics(results, velocity_errors)}


MEASURE = Measure("roundtrip", needs=("tokenizer",), run=run)


def _metrics(results: list[Roundtrip], velocity_errors: list[NDArray[np.int64]]) -> Metrics:
    reason = np.concatenate([r.lost for r in results])
    metrics: Metrics = {
        "notes": reason.size,
        "notes_exact": float((reason == _EXACT).mean()),
        **{f"notes_{name}": int((reason == i).sum()) for i, name in enumerate(REASONS)},
        "codes_per_cell": sum(r.codes for r in results) / max(sum(r.cells for r in results), 1),
        "tokens_per_note": sum(r.tokens for r in results) / max(reason.size, 1),
    }
    for name, errors in (
        ("onset", [r.onset_error_sec for r in results]),
        ("offset", [r.offset_error_sec for r in results]),
        ("beat", [r.beat_error_sec for r in results]),
    ):
        p50, p95 = np.percentile(np.concatenate(errors) * 1000, [50, 95])
        metrics |= {f"{name}_ms_p50": round(float(p50), 3), f"{name}_ms_p95": round(float(p95), 3)}
    if velocity_errors:
        metrics["velocity_mae"] = float(np.concatenate(velocity_errors).mean())
    return metrics


_PIECE_COLUMNS = ("path", "notes", *REASONS, "cells", "codes", "tokens", "onset_ms_p95", "beat_ms_p95")
_LOST_COLUMNS = (
    "path",
    "reason",
    "pitch",
    "onset_sec",
    "offset_sec",
    "onset_frame",
    "end_frame",
    "decoded_end",
)


def _piece_row(record: Record, result: Roundtrip) -> tuple[object, ...]:
    def p95(errors: NDArray[np.float64]) -> float:
        return round(float(np.percentile(errors * 1000, 95)), 3) if errors.size else 0.0

    lost = [int((result.lost == i).sum()) for i in range(len(REASONS))]
    sizes = (result.cells, result.codes, result.tokens)
    return (
        record.path,
        result.lost.size,
        *lost,
        *sizes,
        p95(result.onset_error_sec),
        p95(result.beat_error_sec),
    )


def _lost_rows(record: Record, piece: Piece, result: Roundtrip) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for i in np.flatnonzero(result.lost != _EXACT):
        note = piece.notes[i]
        seconds = (round(float(note["onset_sec"]), 6), round(float(note["offset_sec"]), 6))
        frames = (int(result.onset[i]), int(result.end[i]), int(result.decoded_end[i]))
        rows.append((record.path, REASONS[result.lost[i]], int(note["pitch"]), *seconds, *frames))
    return rows
