"""Asks a model for levels of loudness and density, and measures the music that comes.

    python obey.py MODEL CELLS RESULTS

Appends a row for each piece: what was asked, what came, and statistics of `evaluate=samples`. What stands in RESULTS is
not made again.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from experiments.results import Row, read_rows, write_rows
from pianolm import PianoLM, Piece
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.excerpts import cut, opening, within
from pianolm.evaluation.music_statistics import key_of, statistics
from pianolm.evaluation.selection import evenly_spaced
from pianolm.tokenizer.vocabulary import LEVELS

PIECES, SONGS = 200, 25
PROMPT_BEATS, NEW_BEATS, BAR_BEATS = 16, 16, 4
STATISTICS = ("in_key", "bass_on_downbeat", "bar_likeness")
ASKED = ("loudness", "density", "nothing")


def prompts(cells: Path) -> list[Piece]:
    """Openings of validation songs, evenly spaced."""
    store = CellStore.open(cells)
    validation = [index for index, row in enumerate(store.pieces) if row.split == "validation"]
    found = []
    for index in evenly_spaced(validation, SONGS):
        beats_sec, bars = np.asarray(store.beats_sec(index)), store.bar_starts(index)
        piece = opening(Piece.from_cells(store.cells(index), beats_sec, bar_starts=bars), PROMPT_BEATS)
        assert piece is not None, "a song of more than 16 beats"
        found.append(cut(piece, 0, PROMPT_BEATS))
    return found


def measure(piece: Piece, first: int, name: str, level: int) -> Row:
    """The row of one piece whose new music begins at a beat."""
    last = piece.n_beats
    notes = within(piece.frame_notes, first, last)
    head = within(piece.frame_notes, 0, first) if first else notes
    row: Row = {
        "asked": name,
        "prompt": first > 0,
        "level": level,
        "loudness": round(float(notes["velocity"].mean()), 2) if notes.size else None,
        "density": round(notes.size / (last - first), 3),
        "beats": last - first,
    }
    found = statistics(piece, first, last, key_of(head), BAR_BEATS) if notes.size else {}
    return row | {
        key: None if math.isnan(found.get(key, math.nan)) else round(found[key], 3) for key in STATISTICS
    }


def main(model: str, cells: Path, results: Path) -> None:
    lm, heads, rows = PianoLM.from_pretrained(model), prompts(cells), read_rows(results)
    for name in ASKED:
        for prompt in (False, True):
            if any(row["asked"] == name and row["prompt"] == prompt for row in rows):
                continue
            for level in range(1, LEVELS + 1):
                levels = {} if name == "nothing" else {name: level}
                given = {str(at): head for at, head in enumerate(heads)} if prompt else None
                pieces = lm.generate_pieces(
                    given,
                    beats=NEW_BEATS,
                    pieces=1 if prompt else PIECES // LEVELS,
                    seed=level,
                    end="never",
                    **levels,
                )
                first = PROMPT_BEATS if prompt else 0
                rows += [measure(one.piece, first, name, level) for one in pieces]
                sounding = [row["loudness"] for row in rows[-len(pieces) :] if row["loudness"] is not None]
                print(
                    f"{name} {level}, prompt={prompt}: velocity {np.mean(sounding):.0f}, "
                    f"{np.mean([row['density'] for row in rows[-len(pieces) :]]):.1f} notes a beat",
                    flush=True,
                )
            write_rows(results, rows)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
