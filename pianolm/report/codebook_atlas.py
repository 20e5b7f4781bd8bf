"""A picture of the pattern codebook: the codes that the training cells use most.

Shapes: V ids of the vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells
from pianolm.report.patterns import (
    GREY,
    LEVEL_COLOURS,
    NEUTRAL_COLOUR,
    PatternDrawing,
    axes_in_inches,
    darker,
    percent,
)
from pianolm.report.piano_roll import figure
from pianolm.tokenizer.codebook import LEVEL_FRAMES, Codebook
from pianolm.tokenizer.vocabulary import CODE_KINDS

ATLAS_CODES = 48
"""Most codes of a level in the picture."""
_COUNTED_CELLS = 500_000  # enough for the share of every code that a picture can show
_DPI, _COLUMNS = 110, 12
_WIDTH_IN, _ROW_IN, _HEADING_IN, _TOP_IN = 12.0, 0.43, 0.36, 0.62
_LEVEL_NAMES = ("a whole beat", "a half beat", "a quarter beat", "an eighth of a beat")


def count_code_use(codebook: Codebook, cells: Cells) -> NDArray[np.int64]:
    """[V] how often exact encoding uses each id, over at most half a million evenly spaced cells."""
    every = slice(None, None, max(-(-len(cells) // _COUNTED_CELLS), 1))
    ids = codebook.encode(np.asarray(cells.sustain[every]), np.asarray(cells.onset[every]))
    return np.bincount(ids[ids >= 0], minlength=codebook.vocabulary.size)


def save_codebook_atlas(codebook: Codebook, use_V: NDArray[np.int64], path: str | Path) -> None:
    """Draws the most used codes of L1 to L4 as their frames, with number and share of their level's use.

    Args:
        codebook: The codes.
        use_V: [V] how often each id of the vocabulary was used; only code ids are read.
        path: PNG to write.
    """
    counts = [use_V[codebook.vocabulary.ids(kind)] for kind in CODE_KINDS]
    most_used = [_most_used(count) for count in counts]
    rows = [max(-(-codes.size // _COLUMNS), 1) for codes in most_used]
    height = _TOP_IN + sum(_HEADING_IN + _ROW_IN * n for n in rows) + 0.15
    picture = figure(_WIDTH_IN, height)
    picture.set_layout_engine("none")
    total = int(sum(count.sum() for count in counts))
    title = f"The codes used most often, of {total:,} counted"
    picture.text(0.2 / _WIDTH_IN, 1 - 0.16 / height, title, size=13, va="top")
    key_in = _WIDTH_IN - 5.2
    _draw_key(axes_in_inches(picture, (5.0, height - 0.46, key_in, 0.32)), key_in)
    top = height - _TOP_IN
    for level, (count, codes) in enumerate(zip(counts, most_used, strict=True)):
        size_in = _ROW_IN * rows[level]
        axes = axes_in_inches(picture, (0.2, top - _HEADING_IN - size_in, _WIDTH_IN - 0.4, size_in))
        axes.set(xlim=(0, _COLUMNS), ylim=(rows[level], 0))
        _draw_level(axes, codebook, level, codes, count)
        _draw_heading(picture, top - _HEADING_IN + 0.07, level, codes, count, total)
        top -= _HEADING_IN + size_in
    picture.savefig(path, dpi=_DPI)


def _most_used(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """The used codes of a level, most used first, at most `ATLAS_CODES`."""
    order = np.argsort(-count, kind="stable")[:ATLAS_CODES]
    return order[count[order] > 0]


def _draw_heading(
    picture: Figure, y_in: float, level: int, codes: NDArray[np.int64], count: NDArray[np.int64], total: int
) -> None:
    """The name of a level, and how much it is used."""
    kind, y = CODE_KINDS[level], y_in / picture.get_figheight()
    name = f"{kind.name}  {_LEVEL_NAMES[level]}, {LEVEL_FRAMES[level]} frames"
    colour = darker(LEVEL_COLOURS[kind])
    picture.text(0.2 / _WIDTH_IN, y, name, size=10.5, weight="bold", color=colour)
    used, share = int((count > 0).sum()), count.sum() / max(total, 1)
    use = (
        f"{used} of {count.size} codes used · {percent(share)} of all codes · "
        f"shown: {percent(count[codes].sum() / max(count.sum(), 1))} of the level"
    )
    picture.text(1 - 0.2 / _WIDTH_IN, y, use, size=9, ha="right", color=GREY)


def _draw_level(
    axes: Axes, codebook: Codebook, level: int, codes: NDArray[np.int64], count: NDArray[np.int64]
) -> None:
    """The codes of a level in rows."""
    frames, patterns, colour = (
        LEVEL_FRAMES[level],
        codebook.all_levels[level],
        LEVEL_COLOURS[CODE_KINDS[level]],
    )
    drawing = PatternDrawing(min_onset_width=0.02, notch=0.05)
    for place, code in enumerate(codes.tolist()):
        row, column = divmod(place, _COLUMNS)
        sustain, onset = int(patterns.sustain[code]), int(patterns.onset[code])
        drawing.add(sustain, onset, frames, (column + 0.03, row + 0.04, 0.94, 0.46), colour)
        if not sustain:
            axes.text(column + 0.5, row + 0.27, "silence", size=7, ha="center", va="center", color=GREY)
        axes.text(column + 0.03, row + 0.56, str(code), size=7.5, va="top")
        share = percent(count[code] / count.sum())
        axes.text(column + 0.97, row + 0.56, share, size=7.5, va="top", ha="right", color=GREY)
    if not codes.size:
        axes.text(0.03, 0.5, "none used in the cells counted", size=9, va="center", color=GREY)
    drawing.draw_boxes(axes, 8 if frames == FRAMES else 4 if frames == FRAMES // 2 else 2)
    drawing.draw(axes)


def _draw_key(axes: Axes, width_in: float) -> None:
    """The legend of the patterns, in one line."""
    axes.set(xlim=(0, width_in), ylim=(1, 0))
    entries = (("struck, then sounding", 0.0, 0xFFF000, 1 << 12), ("held over from before", 2.5, 0xFFF, 0))
    drawing = PatternDrawing(min_onset_width=0.02, notch=0.05)
    for label, left, sustain, onset in entries:
        drawing.add(sustain, onset, 24, (left, 0.12, 0.7, 0.76), NEUTRAL_COLOUR)
        axes.text(left + 0.78, 0.5, label, size=9, va="center")
    axes.text(width_in, 0.5, "code · share of its level", size=9, va="center", ha="right")
    drawing.draw_boxes(axes, 4)
    drawing.draw(axes)
