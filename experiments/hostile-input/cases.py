"""A folder of small files with the right outcome of each: what becomes of them, and the table of its README with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments.written_pieces import differences_over_round_trips
from pianolm import Piece
from pianolm.errors import UserError

_ROUND_TRIPS = 5
_COLUMNS = ("file", "what it is", "was", "right")


def case_rows(folder: Path) -> Iterator[dict[str, str]]:
    """The rows of the table in README.md of a folder, each with what becomes of its files `now`."""
    for row in _table(folder / "README.md"):
        words = row["file"].replace(",", " ").split()
        found = {name: now(folder / name) for name in words if name.endswith(".mid")}
        texts = [text if len(found) == 1 else f"{name}: {text}" for name, text in found.items()]
        yield {"file": row["file"], "what": row["what it is"], "right": row["right"], "now": "; ".join(texts)}


def _table(readme: Path) -> Iterator[Mapping[str, str]]:
    for line in readme.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
        if line.startswith("| ") and cells[0] != _COLUMNS[0] and len(cells) == len(_COLUMNS):
            yield dict(zip(_COLUMNS, cells, strict=True))


def now(path: Path) -> str:
    """What becomes of a file: the sentence of its rejection, or the piece, its remarks and its round trips."""
    try:
        piece = Piece.from_midi(path)
    except UserError as error:
        return f"rejected: {str(error).replace(f'{path.parent}/', '').removeprefix(f'{path.name}: ')}"
    words = [repr(piece).removeprefix("Piece(").removesuffix(")"), *map(_short, piece.remarks.sentences())]
    extended = Piece.from_midi(path, pedal="extend")
    if extended.remarks.pedalled_notes:
        lengths = f"the longest to {_longest(extended)} from {_longest(piece)} s"
        words.append(f"with pedal=extend {extended.remarks.pedalled_notes} notes extended, {lengths}")
    with tempfile.TemporaryDirectory() as scratch:
        other = differences_over_round_trips(piece, Path(scratch) / "again.mid", _ROUND_TRIPS)
    words.append(f"written and read {_ROUND_TRIPS} times: {other[0] if other else 'the same'}")
    return "used: " + "; ".join(words)


def _short(remark: str) -> str:
    """A remark up to its colon, where what follows explains it."""
    return f"said: {remark.partition(': ')[0]}"


def _longest(piece: Piece) -> str:
    return f"{(piece.notes['offset_sec'] - piece.notes['onset_sec']).max():.2f}"
