"""Chooses a bar of the training data that shows well how patterns are coded, for a picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pianolm.data.cell_store import CellStore
from pianolm.music.cells import Cells
from pianolm.tokenizer.codebook import Codebook
from pianolm.tokenizer.vocabulary import CODE_KINDS

_PIECES = 100  # first pieces that are searched
_BEATS = 4
_CELLS = (6, 20)  # fewer show little, more are hard to read
_PITCHES = 8  # a row of the picture each
Score = tuple[int, int, int]


class Bar(NamedTuple):
    """Some beats of a piece of a store."""

    piece: int
    first_beat: int
    n_beats: int


def choose_bar(store: CellStore, codebook: Codebook) -> Bar:
    """The bar that shows most of how patterns are coded; a function of the store and the codebook.

    Searches the first training pieces with notes, performances if there are any, for bars that begin on a downbeat
    where downbeats are known. The order of preference is a readable number of cells and pitches without silent beats,
    then most levels, then most notes, then the first.

    Args:
        store: A store with training cells.
        codebook: The codes.
    """
    with_notes = [index for index in store.split("train") if store.pieces[index].cells]
    performances = [index for index in with_notes if store.pieces[index].kind == "performance"]
    candidates = (performances or with_notes)[:_PIECES]
    best: tuple[Score, Bar] | None = None
    for index in candidates:
        cells = store.cells(index)
        ids = codebook.encode(np.asarray(cells.sustain), np.asarray(cells.onset))
        kinds = np.where(ids >= 0, codebook.vocabulary.kind_of[ids], -1)
        codes_C4 = np.stack([(kinds == kind).sum(axis=1) for kind in CODE_KINDS], axis=1)
        for first_beat, n_beats in bars(store.bar_starts(index), cells.n_beats):
            score = _score(cells, codes_C4, first_beat, n_beats)
            if score is not None and (best is None or score > best[0]):
                best = score, Bar(index, first_beat, n_beats)
    return _first_notes(store, candidates[0]) if best is None else best[1]


def _score(cells: Cells, codes_C4: NDArray[np.int64], first_beat: int, n_beats: int) -> Score | None:
    """Readability, levels and notes of a bar, larger is better; None without notes."""
    first, stop = np.searchsorted(cells.beat, [first_beat, first_beat + n_beats])
    if first == stop:
        return None
    count, pitches = int(stop - first), np.unique(cells.pitch[first:stop]).size
    unreadable = max(_CELLS[0] - count, count - _CELLS[1], 0) + max(pitches - _PITCHES, 0)
    silent_beats = n_beats - np.unique(cells.beat[first:stop]).size
    levels = int(codes_C4[first:stop].any(axis=0).sum())
    notes = int(np.bitwise_count(cells.onset[first:stop]).sum())
    return -(unreadable + silent_beats), levels, notes


def _first_notes(store: CellStore, piece: int) -> Bar:
    """Beats from the first note on, for a piece whose notes are all outside the bars."""
    first_beat = int(store.cells(piece).beat[0])
    return Bar(piece, first_beat, min(_BEATS, store.pieces[piece].beats - first_beat))


def bars(bar_starts: NDArray[np.intp], n_beats: int) -> list[tuple[int, int]]:
    """First beat and length of every bar, at most four beats of it; four beats each where no bar is known.

    Args:
        bar_starts: [D] beats at which bars begin.
        n_beats: Beats of the piece.
    """
    starts = bar_starts[bar_starts < n_beats]
    if not starts.size:
        starts = np.arange(0, n_beats, _BEATS)
    ends = np.minimum(np.append(starts[1:], n_beats), starts + _BEATS)
    return list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))
