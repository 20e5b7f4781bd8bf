"""Fills random gaps of validation songs and checks each fill note for note.

    python many.py MODEL CELLS RESULT

Gaps of 1 to 16 beats, at the beginning, at the end or between, of all pitches or a register. Checked are: the tokens
are well-formed; beats and bars are those of the piece; notes that begin outside the gap are the same, with their
velocities and ends; nothing that sounds outside changes.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from pianolm import PianoLM, Piece
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.excerpts import cut
from pianolm.music.beats import FRAMES
from pianolm.music.gap import Gap

FILLS, PIECE_BEATS = 1000, 48
PROBLEMS = ("ill-formed", "other beats", "other bars", "other notes outside", "other sound outside")
REGISTERS = ((0, 127), (60, 127), (0, 59))


def drawn_piece(store: CellStore, songs: list[int], rng: np.random.Generator) -> Piece:
    """Some beats of a song."""
    index = songs[int(rng.integers(len(songs)))]
    whole = Piece.from_cells(
        store.cells(index), np.asarray(store.beats_sec(index)), bar_starts=store.bar_starts(index)
    )
    first = int(rng.integers(0, whole.n_beats - PIECE_BEATS))
    return cut(whole, first, first + PIECE_BEATS)


def drawn_gap(rng: np.random.Generator) -> Gap:
    beats = int(rng.choice([1, 2, 4, 8, 16]))
    first = int(rng.choice([0, PIECE_BEATS - beats, rng.integers(0, PIECE_BEATS - beats + 1)]))
    return Gap(first, first + beats, *REGISTERS[int(rng.choice(3, p=[0.6, 0.2, 0.2]))])


def outside(piece: Piece, gap: Gap) -> list[tuple[object, ...]]:
    """Notes that begin outside the gap or its register, with times and velocities."""
    notes = piece.notes
    begin, end = piece.beats_sec[[gap.first, gap.stop]] - 0.5 * np.diff(piece.beats_sec).min() / FRAMES
    inside = (notes["onset_sec"] >= begin) & (notes["onset_sec"] < end)
    inside &= (notes["pitch"] >= gap.lowest) & (notes["pitch"] <= gap.highest)
    return sorted(notes[~inside].tolist())


def sounding(piece: Piece, gap: Gap) -> set[tuple[int, int, int, int]]:
    """What sounds outside the beats of the gap."""
    cells = piece.cells
    kept = (cells.beat < gap.first) | (cells.beat >= gap.stop)
    rows = zip(
        *(a[kept].tolist() for a in (cells.beat, cells.pitch, cells.sustain, cells.onset)), strict=True
    )
    return set(rows)


def problem(lm: PianoLM, piece: Piece, filled: Piece, ids: np.ndarray, gap: Gap) -> str:
    """What is wrong with a fill, empty for nothing."""
    if not lm.tokenizer.fill_grammar.is_complete(ids):
        return "ill-formed"
    if not np.array_equal(filled.beats_sec, piece.beats_sec):
        return "other beats"
    if not np.array_equal(filled.bar_starts, piece.bar_starts):
        return "other bars"
    if outside(filled, gap) != outside(piece, gap):
        return "other notes outside"
    return "" if sounding(filled, gap) == sounding(piece, gap) else "other sound outside"


def main(model: str, cells: Path, result: Path) -> None:
    lm, store, rng = PianoLM.from_pretrained(model), CellStore.open(cells), np.random.default_rng(0)
    songs = [index for index, row in enumerate(store.pieces) if row.split == "validation"]
    found: Counter[str] = Counter()
    for number in range(FILLS // 2):
        piece, gap = drawn_piece(store, songs, rng), drawn_gap(rng)
        for one in lm.fill_pieces(piece, gap, pieces=2, seed=number):
            wrong = problem(lm, piece, one.piece, one.ids, gap)
            edge = "edge" if gap.first == 0 or gap.stop == PIECE_BEATS else "inside"
            found.update(["fills", f"at_{edge}", *(["register"] if gap.has_register else [])])
            found.update([wrong] if wrong else [])
        if number % 50 == 49:
            print(dict(found), flush=True)
    failed = sum(count for key, count in found.items() if key in PROBLEMS)
    result.write_text(json.dumps({**found, "failed": failed}))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
