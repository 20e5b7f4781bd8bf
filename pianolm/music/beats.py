"""Beat grids: read from annotations, from a tempo map or a beat track; repaired; extended to cover the notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pianolm.errors import UserError
from pianolm.music.midi import MidiContent

FRAMES = 48
"""Frames a beat."""

BEAT_FILE_ENDINGS = ("_annotations.txt", ".beats.txt", ".tsv")
MIN_BEAT_SEC = 60 / 480
MAX_BEAT_SEC = 60 / 15
MAX_BEATS = 100_000
"""Of one piece: over three hours at 480 BPM. A longer grid comes from a damaged time and could fill memory."""
_LABELS = frozenset({"b", "db", "bR"})
_NEIGHBOURS = 8
_TOLERANCE_SEC = 1e-9


@dataclass(frozen=True)
class BeatAnnotation:
    """Beats as annotated, before any repair.

    Attributes:
        beats_sec: [B] seconds, in file order.
        downbeat: [B] bool, or None where the source does not say.
    """

    beats_sec: NDArray[np.float64]
    downbeat: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Repairs:
    """What was changed in the beats as annotated.

    Attributes:
        reordered: Beats that came before their predecessor.
        merged: Beats merged into a neighbour.
        inserted: Beats put into a gap.
        ahead: Beats added before the first so that the grid covers the notes; common, and no repair.
        behind: Beats added after the last, likewise.
    """

    reordered: int = 0
    merged: int = 0
    inserted: int = 0
    ahead: int = 0
    behind: int = 0

    @property
    def any(self) -> bool:
        """Whether beats were mended; that the grid was extended does not count."""
        return bool(self.reordered or self.merged or self.inserted)


def read_beats(path: str | Path) -> BeatAnnotation:
    """Reads a beat annotation file; the format is told from its rows.

    Known formats, all with seconds in the first column: ASAP (`seconds seconds label`, tab separated, label `b`,
    `db` or `bR` and signatures after a comma), ACPAS (`seconds label`), POP909 `beat_midi.txt` (`seconds flag flag`,
    the second flag marks a bar's first beat counted in four, else the first counted in two) and its
    `beat_audio.txt` (`seconds number`, 1 a downbeat), and a plain list of seconds.

    Raises:
        UserError: The file is missing, empty, or a row is in no known format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such beat file; expected rows that start with a beat's time in seconds")
    try:
        columns = _columns(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; expected rows of `seconds label`") from error
    if not columns:
        raise UserError(f"{path}: empty; expected one row a beat, its time in seconds first")
    return BeatAnnotation(_seconds(columns[0], path), _downbeats(columns, path))


def _columns(text: str) -> list[list[str]]:
    """Columns that every row has; rows that hold nothing are left out."""
    lines = text.splitlines()
    separator = "\t" if "\t" in text else " "
    widths = {line.count(separator) for line in lines}
    fields = text.split()
    if len(widths) == 1 and len(fields) == (width := min(widths) + 1) * len(lines):  # rows of one form
        return [fields[i::width] for i in range(width)]
    return [list(column) for column in zip(*filter(None, map(str.split, lines)), strict=False)]


def _seconds(column: list[str], path: Path) -> NDArray[np.float64]:
    """[B] beat times."""
    try:
        beats = np.array(list(map(float, column)))
    except ValueError:
        beats = np.array(list(map(_number, column)))
    odd = np.flatnonzero(~np.isfinite(beats))
    if odd.size:
        raise UserError(
            f"{path}: line {odd[0] + 1} starts with {column[odd[0]]!r}, expected a beat's time in seconds; "
            "known are the ASAP, ACPAS and POP909 annotation formats and a plain list of seconds"
        )
    return beats


def _downbeats(columns: list[list[str]], path: Path) -> NDArray[np.bool_] | None:
    if len(columns) == 1:
        return None
    labels = columns[2 if len(columns) > 2 else 1]
    distinct = dict.fromkeys(labels)  # few
    if all(np.isfinite(_number(_label(text))) for text in distinct):
        number = {text: _number(_label(text)) for text in distinct}
        if len(columns) > 2 and 1 not in number.values():
            labels = columns[1]
            number = {text: _number(text) for text in dict.fromkeys(labels)}
        return np.array([number[text] == 1 for text in labels])
    odd = next((text for text in distinct if _label(text) not in _LABELS), None)
    if odd is not None:
        raise UserError(
            f"{path}: line {labels.index(odd) + 1} has the label {_label(odd)!r}, expected one of b, db, bR "
            "(ASAP, ACPAS) or numbers (POP909); is this another kind of annotation?"
        )
    down = {text: _label(text) == "db" for text in distinct}
    return np.array([down[text] for text in labels])


def _label(text: str) -> str:
    """A label without the key or time signature behind it."""
    return text.partition(",")[0]


def _number(text: str) -> float:
    """The number that a text says; NaN where it says none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def tempo_map_beats(midi: MidiContent) -> BeatAnnotation:
    """One beat a quarter note of the file's own tempo map, from tick 0 to past the last note.

    Raises:
        UserError: The file is longer than any music.
    """
    count = max(-(-midi.end_tick // midi.ticks_per_quarter), 1)
    _check_length(count, "tempo map")
    ticks = np.arange(count + 1, dtype=np.int64) * midi.ticks_per_quarter
    return BeatAnnotation(midi.seconds(ticks))


def track_beats(midi: MidiContent, name: str) -> BeatAnnotation:
    """The onsets of the file's track called beats, click or metronome.

    Raises:
        UserError: There is no such track.
    """
    if midi.track_beats_sec is None:
        raise UserError(
            f"{name}: no track called beats, click or metronome; give a beat file, or use beats='tempo_map'"
        )
    return BeatAnnotation(midi.track_beats_sec)


def repair_beats(beats_sec: ArrayLike, name: str = "beats") -> tuple[NDArray[np.float64], Repairs]:
    """Makes a grid in which every beat lies within 15–480 BPM.

    Beats out of order are sorted; a beat that comes less than 1/8 second after the last one kept is merged into it;
    a gap of more than 4 seconds is cut into the fewest equal beats that fit.

    Args:
        beats_sec: [B] seconds.
        name: What to call the source in an error message.

    Returns:
        The grid [B'] strictly increasing, and what was changed.

    Raises:
        UserError: Fewer than two beats are left, or a time is not finite.
    """
    given = np.asarray(beats_sec, np.float64).ravel()
    if not np.isfinite(given).all():
        raise UserError(f"{name}: a beat time is not a finite number of seconds; remove or mend that beat")
    steps = np.diff(given)
    reordered = int((steps < 0).sum())
    kept = _merge_close(given if (steps > 0).all() else np.unique(given))
    if kept.size < 2:
        raise UserError(
            f"{name}: {kept.size} beat(s) at least 1/8 second apart found, expected at least 2 to make a grid"
        )
    parts = np.ceil(np.diff(kept) / MAX_BEAT_SEC - _TOLERANCE_SEC).astype(np.int64)
    _check_length(int(parts.sum()), name)
    position = np.concatenate([[0], np.cumsum(parts)])
    grid = np.interp(np.arange(position[-1] + 1), position, kept)
    return grid, Repairs(reordered, given.size - kept.size, grid.size - kept.size)


def _merge_close(beats_sec: NDArray[np.float64]) -> NDArray[np.float64]:
    if beats_sec.size < 2 or np.diff(beats_sec).min() >= MIN_BEAT_SEC - _TOLERANCE_SEC:
        return beats_sec
    kept = [beats_sec[0]]
    for beat in beats_sec[1:]:
        if beat - kept[-1] >= MIN_BEAT_SEC - _TOLERANCE_SEC:
            kept.append(beat)
    return np.array(kept)


def cover(
    beats_sec: NDArray[np.float64],
    onset_sec: NDArray[np.float64],
    offset_sec: NDArray[np.float64],
    name: str = "beats",
) -> NDArray[np.float64]:
    """Extends a grid so that every note falls inside, with room for at least one frame.

    Beats are added before the first and after the last at the median interval of the nearest eight beats.

    Args:
        beats_sec: [B] strictly increasing, B ≥ 2.
        onset_sec: [N] note onsets.
        offset_sec: [N] note ends.
        name: What to call the source in an error message.

    Raises:
        UserError: A note lies so far from the beats that the grid would be longer than any music.
    """
    if onset_sec.size == 0:
        return beats_sec
    ahead = median(np.diff(beats_sec[: _NEIGHBOURS + 1]).tolist())
    behind = median(np.diff(beats_sec[-_NEIGHBOURS - 1 :]).tolist())
    last_sec = max(float(offset_sec.max()), float(onset_sec.max()) + behind / FRAMES)
    before = max(int(np.ceil((beats_sec[0] - onset_sec.min()) / ahead - _TOLERANCE_SEC)), 0)
    after = max(int(np.ceil((last_sec - beats_sec[-1]) / behind - _TOLERANCE_SEC)), 0)
    _check_length(before + beats_sec.size + after, name)
    return np.concatenate(
        [
            beats_sec[0] - ahead * np.arange(before, 0, -1),
            beats_sec,
            beats_sec[-1] + behind * np.arange(1, after + 1),
        ]
    )


def _check_length(beats: int, name: str) -> None:
    if beats > MAX_BEATS:
        raise UserError(
            f"{name}: {beats} beats are needed to reach from the first beat or note to the last, expected at most "
            f"{MAX_BEATS}; a time is damaged, or the beats belong to another file"
        )


def beat_file_beside(midi_path: str | Path) -> Path | None:
    """The beat file that belongs to a MIDI file by its name, None when there is none.

    Looked for in this order: `<name>_annotations.txt`, `<name>.beats.txt`, `<name>.tsv`.
    """
    midi_path = Path(midi_path)
    candidates = (midi_path.with_name(midi_path.stem + ending) for ending in BEAT_FILE_ENDINGS)
    return next((path for path in candidates if path.is_file()), None)
