"""Beat grids: reads beats from annotation files, repairs them, and extends them to cover the notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError

FRAMES = 48
"""Number of frames per beat."""

BEAT_FILE_ENDINGS = ("_annotations.txt", ".beats.txt", ".tsv")
MIN_BEAT_SEC = 60 / 480
MAX_BEAT_SEC = 60 / 15
MAX_BEATS = 100_000
"""Longest grid accepted, over three hours at 480 BPM. A longer one comes from a damaged time and could fill memory."""
_LABELS = frozenset({"b", "db", "bR"})
_NEIGHBOURS = 8
_TOLERANCE_SEC = 1e-9


@dataclass(frozen=True)
class BeatAnnotation:
    """Beats as annotated, before any repair.

    Attributes:
        beats_sec: [B] beat times in seconds, in file order.
        downbeat: [B] whether each beat is a downbeat; None if the source has no downbeats.
    """

    beats_sec: NDArray[np.float64]
    downbeat: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Repairs:
    """Numbers of changes made to the annotated beats.

    Attributes:
        reordered: Beats earlier than the beat before them.
        merged: Beats merged into a neighbour.
        inserted: Beats inserted into gaps.
        added_before: Beats added before the first one so that the grid covers the notes. Common, and not a repair.
        added_after: Beats added after the last one, likewise.
    """

    reordered: int = 0
    merged: int = 0
    inserted: int = 0
    added_before: int = 0
    added_after: int = 0

    @property
    def any(self) -> bool:
        """Whether any beat was repaired; extending the grid does not count."""
        return bool(self.reordered or self.merged or self.inserted)


def read_beats(path: str | Path) -> BeatAnnotation:
    """Reads a beat annotation file, whose format is recognised from its rows.

    All formats have seconds in the first column: ASAP (`seconds seconds label`, tab separated, label `b`, `db` or `bR`
    and signatures after a comma), ACPAS (`seconds label`), POP909 `beat_midi.txt` (`seconds flag flag`; the second flag
    marks downbeats in 4/4, or if it is never set, the first one marks downbeats in 2/4), POP909 `beat_audio.txt`
    (`seconds number`, 1 is a downbeat), and a plain list of seconds.

    Raises:
        UserError: The file is missing or empty, or a row has none of these formats.
    """
    path = Path(path)
    if not _is_file(path):
        raise UserError(
            f"{path}: no such beat file; expected a text file whose rows start with a beat time in seconds"
        )
    try:
        columns = _columns(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; expected rows of `seconds label`") from error
    if not columns:
        raise UserError(f"{path}: empty; expected one row per beat that starts with its time in seconds")
    return BeatAnnotation(_seconds(columns[0], path), _downbeats(columns, path))


def _columns(text: str) -> list[list[str]]:
    """Splits rows into columns, as many as the shortest row has; blank rows are left out."""
    lines = text.splitlines()
    separator = "\t" if "\t" in text else " "
    widths = {line.count(separator) for line in lines}
    fields = text.split()
    # The usual case: all rows have the same columns.
    if len(widths) == 1 and len(fields) == (width := min(widths) + 1) * len(lines):
        return [fields[i::width] for i in range(width)]
    return [list(column) for column in zip(*filter(None, map(str.split, lines)), strict=False)]


def _seconds(column: list[str], path: Path) -> NDArray[np.float64]:
    """Converts the first column to [B] beat times."""
    try:
        beats = np.array(list(map(float, column)))
    except ValueError:
        beats = np.array(list(map(_number, column)))
    invalid = np.flatnonzero(~np.isfinite(beats))
    if invalid.size:
        raise UserError(
            f"{path}: line {invalid[0] + 1} starts with {column[invalid[0]]!r}, expected a beat time in seconds; "
            "supported are the ASAP, ACPAS and POP909 annotation formats and a plain list of seconds"
        )
    return beats


def _downbeats(columns: list[list[str]], path: Path) -> NDArray[np.bool_] | None:
    """[B] downbeat flags from the label or number columns; None if there is only the column of times."""
    if len(columns) == 1:
        return None
    labels = columns[2 if len(columns) > 2 else 1]
    distinct = dict.fromkeys(labels)  # few, so that parsing them once is fast
    if all(np.isfinite(_number(_label(text))) for text in distinct):
        number = {text: _number(_label(text)) for text in distinct}
        if len(columns) > 2 and 1 not in number.values():
            labels = columns[1]
            number = {text: _number(text) for text in dict.fromkeys(labels)}
        return np.array([number[text] == 1 for text in labels])
    unknown = next((text for text in distinct if _label(text) not in _LABELS), None)
    if unknown is not None:
        raise UserError(
            f"{path}: line {labels.index(unknown) + 1} has the label {_label(unknown)!r}, expected one of b, db, bR "
            "(ASAP, ACPAS) or numbers (POP909); is this another kind of annotation?"
        )
    is_downbeat = {text: _label(text) == "db" for text in distinct}
    return np.array([is_downbeat[text] for text in labels])


def _label(text: str) -> str:
    """A label without the key or time signature after its comma."""
    return text.partition(",")[0]


def _number(text: str) -> float:
    """Parses a number; NaN if the text is not one."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def repair_beats(beats_sec: ArrayLike, name: str = "beats") -> tuple[NDArray[np.float64], Repairs]:
    """Makes a grid in which the tempo of every beat is within 15–480 BPM.

    Beats are sorted; a beat less than 1/8 second after the one before is merged into it; a gap of more than 4 seconds
    is divided into the fewest equal beats of at most 4 seconds.

    Args:
        beats_sec: [B] beat times in seconds.
        name: Name of the source, such as a path, for error messages.

    Returns:
        The strictly increasing grid [B'], and the numbers of changes.

    Raises:
        UserError: Fewer than two beats remain, a time is not finite, or the grid would be longer than `MAX_BEATS`.
    """
    given = np.asarray(beats_sec, np.float64).ravel()
    if not np.isfinite(given).all():
        raise UserError(f"{name}: a beat time is not a finite number of seconds; remove or correct that beat")
    steps = np.diff(given)
    reordered = int((steps < 0).sum())
    kept = merge_close(given if (steps > 0).all() else np.unique(given))
    if kept.size < 2:
        raise UserError(f"{name}: {kept.size} beat(s) at least 1/8 second apart found, expected at least 2")
    check_grid_length(kept[-1] / MAX_BEAT_SEC - kept[0] / MAX_BEAT_SEC, name)
    parts = np.ceil(np.diff(kept) / MAX_BEAT_SEC - _TOLERANCE_SEC).astype(np.int64)
    check_grid_length(int(parts.sum()), name)
    position = np.concatenate([[0], np.cumsum(parts)])
    grid = np.interp(np.arange(position[-1] + 1), position, kept)
    return grid, Repairs(reordered, given.size - kept.size, grid.size - kept.size)


def merge_close(beats_sec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of ascending beats [B] that come at least 1/8 second after the one kept before."""
    if beats_sec.size < 2 or np.diff(beats_sec).min() >= MIN_BEAT_SEC - _TOLERANCE_SEC:
        return beats_sec
    kept = [beats_sec[0]]
    for beat in beats_sec[1:]:
        if beat - kept[-1] >= MIN_BEAT_SEC - _TOLERANCE_SEC:
            kept.append(beat)
    return np.array(kept)


def extend_beats(
    beats_sec: NDArray[np.float64],
    onset_sec: NDArray[np.float64],
    offset_sec: NDArray[np.float64],
    name: str = "beats",
) -> NDArray[np.float64]:
    """Extends a grid so that it covers every note and at least one frame after each onset.

    Beats are added before the first and after the last one at the median interval of the nearest eight beats.

    Args:
        beats_sec: [B] strictly increasing beat times, B ≥ 2.
        onset_sec: [N] onsets of the notes.
        offset_sec: [N] ends of the notes.
        name: Name of the source, such as a path, for error messages.

    Raises:
        UserError: The grid would be longer than `MAX_BEATS`.
    """
    if onset_sec.size == 0:
        return beats_sec
    interval_before = median(np.diff(beats_sec[: _NEIGHBOURS + 1]).tolist())
    interval_after = median(np.diff(beats_sec[-_NEIGHBOURS - 1 :]).tolist())
    last_sec = max(float(offset_sec.max()), float(onset_sec.max()) + interval_after / FRAMES)
    check_grid_length(max(beats_sec[0], last_sec) / MAX_BEAT_SEC - onset_sec.min() / MAX_BEAT_SEC, name)
    before = max(int(np.ceil((beats_sec[0] - onset_sec.min()) / interval_before - _TOLERANCE_SEC)), 0)
    after = max(int(np.ceil((last_sec - beats_sec[-1]) / interval_after - _TOLERANCE_SEC)), 0)
    check_grid_length(before + beats_sec.size + after, name)
    return np.concatenate(
        [
            beats_sec[0] - interval_before * np.arange(before, 0, -1),
            beats_sec,
            beats_sec[-1] + interval_after * np.arange(1, after + 1),
        ]
    )


def check_grid_length(beats: float, name: str) -> None:
    """Raises a `UserError` if a grid would have more than `MAX_BEATS` beats."""
    if beats > MAX_BEATS:
        raise UserError(
            f"{name}: the grid from the first beat or note to the last one needs {beats:.6g} beats, expected at most "
            f"{MAX_BEATS}; a time is damaged, or the beats belong to another file"
        )


def check_beats_fit(
    beats_sec: NDArray[np.float64],
    onset_sec: NDArray[np.float64],
    offset_sec: NDArray[np.float64],
    name: str = "beats",
) -> None:
    """Checks that at least half of the beats lie within the music.

    Args:
        beats_sec: [B + 1] beat times in seconds that cover the notes.
        onset_sec: [N] onsets of the notes.
        offset_sec: [N] ends of the notes.
        name: Name of the source of the beats, for error messages.

    Raises:
        UserError: More than half of the beats end before the first note or start after the end of the last one.
    """
    outside = (beats_sec[1:] <= onset_sec.min()) | (beats_sec[:-1] >= offset_sec.max())
    if 2 * outside.sum() > outside.size:
        raise UserError(
            f"{name}: {outside.sum()} of {outside.size} beats lie outside the notes, which sound from "
            f"{onset_sec.min():.6g} to {offset_sec.max():.6g} s; give the beats of this file, in seconds"
        )


def beat_file_beside(midi_path: str | Path) -> Path | None:
    """Finds the beat file beside a MIDI file by its name; None if there is none.

    Names are tried in this order: `<name>_annotations.txt`, `<name>.beats.txt`, `<name>.tsv`.
    """
    midi_path = Path(midi_path)
    candidates = (midi_path.with_name(midi_path.stem + ending) for ending in BEAT_FILE_ENDINGS)
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long, or the folder may not be read
        return False
