"""Stage `codebook`: fits the pattern codebook to the training cells.

Reads `codebook.*` and `tokenizer.vocabulary`, and `tokenizer.tempo` for a picture. Publishes `codebook.npz`,
`atlas.png` (the codes that the training cells use most) and `bar.png` (a bar of a training piece as notes, cells, codes
and tokens).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pianolm.data.cell_store import CellStore
from pianolm.data.example_bar import choose_bar
from pianolm.errors import UserError
from pianolm.music.piece import Piece
from pianolm.stage import Metrics, Need, Stage, StageContext
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.codebook_file import save_codebook
from pianolm.tokenizer.codebook_fit import fit_codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import Vocabulary


def run(ctx: StageContext) -> Metrics:
    """Fits the codebook and writes it and its pictures to `ctx.out`.

    Raises:
        UserError: There are no training cells.
    """
    from pianolm.report.codebook_atlas import (  # matplotlib is slow to import
        count_code_use,
        save_codebook_atlas,
    )

    store = CellStore.open(ctx.upstream["cells"])
    vocabulary = Vocabulary.from_dict(ctx.cfg["tokenizer"]["vocabulary"])
    tempo = TempoBins(ctx.cfg["tokenizer"]["tempo"], vocabulary.tempo)
    cells = store.joined(store.split("train"))
    if not len(cells):
        raise UserError(f"{store.directory}: no training cells; check data.* and the splits of the source")
    fit = fit_codebook(
        np.asarray(cells.sustain), np.asarray(cells.onset), vocabulary, method=ctx.cfg["codebook"]["method"]
    )
    save_codebook(fit.codebook, ctx.out / "codebook.npz")
    save_codebook_atlas(fit.codebook, count_code_use(fit.codebook, cells), ctx.out / "atlas.png")
    _save_example_bar(store, fit.codebook, tempo, ctx.out / "bar.png")
    return {
        "method": fit.method,
        **{f"coverage_l{level}": share for level, share in enumerate(fit.coverage, 1)},
        "codes_per_cell": fit.codes_per_cell[fit.method],
        **{f"codes_per_cell_{name}": value for name, value in fit.codes_per_cell.items()},
        "distinct_cells": fit.distinct_cells,
    }


def _save_example_bar(store: CellStore, codebook: Codebook, tempo: TempoBins, path: Path) -> None:
    """Draws a bar of a training piece, without velocity tokens."""
    from pianolm.report.tokens import save_bar

    bar = choose_bar(store, codebook)
    piece = Piece.from_cells(store.cells(bar.piece), np.asarray(store.beats_sec(bar.piece)))
    title = f"{store.pieces[bar.piece].id}, beats {bar.first_beat}–{bar.first_beat + bar.n_beats - 1}"
    save_bar(piece, PianoTokenizer(codebook, tempo), path, bar.first_beat, bar.n_beats, title=title)


STAGE = Stage(
    run,
    "Cells to the pattern codebook.",
    needs=lambda cfg: {"cells": Need("prepare", given="cells")},
    settings=lambda cfg: {"codebook": cfg["codebook"], "vocabulary": cfg["tokenizer"]["vocabulary"]},
    objective="codes_per_cell",
    headlines=("coverage_l1", "coverage_l2", "coverage_l3"),
)
