"""Stage `codebook`: the pattern codebook from the training cells.

Reads `codebook.*` and `tokenizer.vocabulary`, and `tokenizer.tempo` for a picture. Publishes `codebook.npz`,
`atlas.png` (the codes that the training cells use most) and `bar.png` (a bar of a training piece on its way to
tokens without velocity).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.errors import UserError
from pianolm.music.cells import Cells
from pianolm.music.piece import Piece
from pianolm.report.tokens import save_bar, save_codebook_atlas
from pianolm.stage import Metrics, StageContext
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.codebook_fit import fit_codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, Vocabulary

VERSION = 1

_COUNTED_CELLS = 500_000  # enough for the share of every code that a picture can show
_BAR_PIECES = 100  # pieces among which a bar is looked for
_BAR_BEATS = 4
_BAR_CELLS = (6, 20)  # fewer say little, more are hard to read
_BAR_PITCHES = 8  # a row each


def run(ctx: StageContext) -> Metrics:
    """Learns the codebook and writes it and its pictures to `ctx.out`.

    Raises:
        UserError: A setting is out of range, or there are no training cells.
    """
    store = CellStore.open(ctx.upstream["cells"])
    settings = ctx.cfg["codebook"]
    vocabulary = Vocabulary.from_dict(ctx.cfg["tokenizer"]["vocabulary"])
    tempo = TempoBins(ctx.cfg["tokenizer"]["tempo"], vocabulary.tempo)
    cells = store.joined(store.split("train"))
    if not len(cells):
        raise UserError(
            f"{ctx.upstream['cells']}: no training cells; check data.* and the splits of the source"
        )
    fit = fit_codebook(
        np.asarray(cells.sustain),
        np.asarray(cells.onset),
        vocabulary,
        method=settings["method"],
        iterations=int(settings["iterations"]),
    )
    fit.codebook.save(ctx.out / "codebook.npz")
    save_codebook_atlas(fit.codebook, count_use(fit.codebook, cells), ctx.out / "atlas.png")
    bar = choose_bar(store, fit.codebook)
    piece = Piece.from_cells(store.cells(bar.piece), np.asarray(store.beats_sec(bar.piece)))
    save_bar(
        piece,
        PianoTokenizer(fit.codebook, tempo),
        ctx.out / "bar.png",
        bar.first_beat,
        bar.n_beats,
        title=f"{store.pieces[bar.piece].id}, beats {bar.first_beat}–{bar.first_beat + bar.n_beats - 1}",
    )
    return {
        "method": fit.method,
        "coverage_l1": fit.coverage[0],
        "coverage_l2": fit.coverage[1],
        "coverage_l3": fit.coverage[2],
        "codes_per_cell": fit.codes_per_cell[fit.method],
        **{f"codes_per_cell_{name}": value for name, value in fit.codes_per_cell.items()},
        "distinct_cells": fit.distinct_cells,
    }


def count_use(codebook: Codebook, cells: Cells) -> NDArray[np.int64]:
    """[V] how often exact encoding uses each id, over evenly spaced cells, at most half a million."""
    every = slice(None, None, max(-(-len(cells) // _COUNTED_CELLS), 1))
    ids = codebook.encode(np.asarray(cells.sustain[every]), np.asarray(cells.onset[every]))
    return np.bincount(ids[ids >= 0], minlength=codebook.vocabulary.size)


class Bar(NamedTuple):
    """Some beats of a piece of a store."""

    piece: int
    first_beat: int
    n_beats: int


def choose_bar(store: CellStore, codebook: Codebook) -> Bar:
    """The bar that shows most of how patterns are coded, always the same for one store and codebook.

    The store has training cells.
    Looks at the first training pieces with notes, performances if there are any, at bars that begin on a downbeat
    where downbeats are known. Prefers a number of cells and pitches that can be read and no silent beat, then as many
    levels as possible, then as many notes as possible, then what comes first.
    """
    sounding = [index for index in store.split("train") if store.pieces[index].cells]
    played = [index for index in sounding if store.pieces[index].kind == "performance"]
    best: tuple[tuple[int, int, int], Bar] | None = None
    for index in (played or sounding)[:_BAR_PIECES]:
        cells = store.cells(index)
        ids = codebook.encode(np.asarray(cells.sustain), np.asarray(cells.onset))
        kinds = np.where(ids >= 0, codebook.vocabulary.kind_of[ids], -1)
        codes_C4 = np.stack([(kinds == kind).sum(axis=1) for kind in CODE_KINDS], axis=1)
        for first, n_beats in _bars(store.bar_starts(index), cells.n_beats):
            low, high = np.searchsorted(cells.beat, [first, first + n_beats])
            if low == high:
                continue
            count, pitches = int(high - low), np.unique(cells.pitch[low:high]).size
            amiss = max(_BAR_CELLS[0] - count, count - _BAR_CELLS[1], 0)
            amiss += max(pitches - _BAR_PITCHES, 0) + n_beats - np.unique(cells.beat[low:high]).size
            levels = int(codes_C4[low:high].any(axis=0).sum())
            struck = int(np.bitwise_count(cells.onset[low:high]).sum())
            score = (-amiss, levels, struck)
            if best is None or score > best[0]:
                best = score, Bar(index, first, n_beats)
    if best is None:  # all notes lie before the first downbeat or late in overlong bars
        index = (played or sounding)[0]
        first = int(store.cells(index).beat[0])
        return Bar(index, first, min(_BAR_BEATS, store.pieces[index].beats - first))
    return best[1]


def _bars(starts: NDArray[np.intp], last: int) -> list[tuple[int, int]]:
    """First beat and length of every bar before a last beat; four beats each where no beat [D] begins a bar."""
    starts = starts[starts < last]
    if not starts.size:
        starts = np.arange(0, last, _BAR_BEATS)
    ends = np.minimum(np.append(starts[1:], last), starts + _BAR_BEATS)
    return list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))
