"""Asks a model for levels of loudness and density, and measures the music that comes.

    python obey.py MODEL CELLS RESULTS [PIECES [GUIDANCE]]

With GUIDANCE the model is only told the levels, with classifier-free guidance of this strength (1: without); else its
distributions are tilted, as in the package. PIECES: of each kind (default 200). Appends a row for each piece: what was
asked and how, what came, and statistics of `evaluate=samples`. What stands in RESULTS is not made again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np

from experiments.controls.guided import tell_only
from experiments.results import Row, read_rows, write_rows
from pianolm import PianoLM, Piece
from pianolm.data.cell_store import CellStore
from pianolm.evaluation.excerpts import cut, opening, within
from pianolm.evaluation.music_statistics import key_of, statistics
from pianolm.evaluation.selection import evenly_spaced
from pianolm.tokenizer.vocabulary import LEVELS

PIECES = 200
PROMPT_BEATS, NEW_BEATS, BAR_BEATS = 16, 16, 4
STATISTICS = ("in_key", "bass_on_downbeat", "bar_likeness")
TILTED, NOTHING = "tilted", "nothing"
BOTH = "both"
"""A level of loudness and one of density for the same piece; every pair of levels as often as any
other, if the openings are a multiple of eight, else once more or less."""
ASKED = ("density", "loudness", NOTHING, BOTH)


def prompts(cells: Path, songs: int) -> list[Piece]:
    """Openings of validation songs, evenly spaced."""
    store = CellStore.open(cells)
    validation = [index for index, row in enumerate(store.pieces) if row.split == "validation"]
    found = []
    for index in evenly_spaced(validation, songs):
        beats_sec, bars = np.asarray(store.beats_sec(index)), store.bar_starts(index)
        piece = opening(Piece.from_cells(store.cells(index), beats_sec, bar_starts=bars), PROMPT_BEATS)
        assert piece is not None, "a song of more than 16 beats"
        found.append(cut(piece, 0, PROMPT_BEATS))
    return found


def requests(name: str, count: int) -> Iterator[tuple[dict[str, int], list[int]]]:
    """What is asked together: the levels, and the numbers of the pieces, below `count`, for which they are asked."""
    if name != BOTH:
        for level in range(1, LEVELS + 1):
            yield ({} if name == NOTHING else {name: level}), list(range(count))
        return
    for loudness, density in product(range(1, LEVELS + 1), repeat=2):
        chosen = [at for at in range(count) if (at + loudness) % LEVELS == density % LEVELS]
        if chosen:
            yield {"loudness": loudness, "density": density}, chosen


def measure(piece: Piece, first: int, name: str, levels: Mapping[str, int], way: str) -> Row:
    """The row of one piece whose new music begins at a beat."""
    last = piece.n_beats
    notes = within(piece.frame_notes, first, last)
    head = within(piece.frame_notes, 0, first) if first else notes
    row: Row = {
        "way": way,
        "asked": name,
        "prompt": first > 0,
        **{f"{asked}_level": level for asked, level in levels.items()},
        "loudness": round(float(notes["velocity"].mean()), 2) if notes.size else None,
        "density": round(notes.size / (last - first), 3),
        "beats": last - first,
    }
    found = statistics(piece, first, last, key_of(head), BAR_BEATS) if notes.size else {}
    return row | {
        key: None if math.isnan(found.get(key, math.nan)) else round(found[key], 3) for key in STATISTICS
    }


def main(model: str, cells: Path, results: Path, count: int = PIECES, guidance: float | None = None) -> None:
    lm, rows = PianoLM.from_pretrained(model), read_rows(results)
    heads = prompts(cells, count // LEVELS)
    if guidance is not None:
        tell_only(lm, guidance)
    for name, prompt in product(ASKED, (False, True)):
        way = TILTED if guidance is None else f"told, guidance {guidance:g}"
        way = NOTHING if name == NOTHING else way
        if any((row["way"], row["asked"], row["prompt"]) == (way, name, prompt) for row in rows):
            continue
        for number, (levels, chosen) in enumerate(requests(name, len(heads))):
            pieces = lm.generate_pieces(
                {str(at): heads[at] for at in chosen} if prompt else None,
                beats=NEW_BEATS,
                pieces=1 if prompt else len(chosen),
                seed=number + 1,
                end="never",
                **levels,
            )
            first = PROMPT_BEATS if prompt else 0
            new = [measure(one.piece, first, name, levels, way) for one in pieces]
            rows += new
            sounding = [row["loudness"] for row in new if row["loudness"] is not None]
            print(
                f"{way}: {levels}, prompt={prompt}: velocity {np.mean(sounding):.0f}, "
                f"{np.mean([row['density'] for row in new]):.1f} notes a beat",
                flush=True,
            )
        write_rows(results, rows)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5, 6):
        sys.exit(__doc__)
    main(
        sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:5]), *map(float, sys.argv[5:])
    )
