"""A picture of cells as they were played and as a velocity codec decodes them: the worst and typical ones.

Shapes: C cells, S segments, G = 4 groups of cells by their number of segments (1, 2, 3, 4 and more).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from pianolm.music.beats import FRAMES
from pianolm.music.cells import Cells, segment_lengths, segment_starts
from pianolm.report.patterns import GREY, LINE_COLOUR
from pianolm.report.piano_roll import figure
from pianolm.report.velvq import GROUP_NAMES, percent
from pianolm.tokenizer.velocity import VelocityCodec
from pianolm.tokenizer.velocity.errors import CLASSES

PERCENTILES = (5, 25, 50, 75, 95, 99)
"""Percentiles of the error at which the typical cells of a group are."""
WORST = 12
_CANDIDATES = 400  # worst cells among which different ones are chosen
_DPI, _ROW_IN = 110, 1.55
_VELOCITIES = 128
_PLAYED, _DECODED, _ERROR = "#1b1b1b", "#0072B2", "#f2b8a0"
TakeCells = Callable[[NDArray[np.int64]], Cells]
"""Returns the cells of some indices."""


def save_worst_cells(
    codec: VelocityCodec,
    take: TakeCells,
    error_C: NDArray[np.floating],
    group_C: NDArray[np.integer],
    path: str | Path,
) -> None:
    """Draws cells as they were played and as they are decoded: the worst, and typical ones by number of segments.

    Equal cells are picture once among the worst. The typical cells of a group are those at `PERCENTILES` of its errors.

    Args:
        codec: A codec of any form.
        take: Returns the cells of some indices.
        error_C: [C] error of each cell, from `cell_errors`.
        group_C: [C] group of each cell, from `segment_group`.
        path: PNG to write.
    """
    columns = len(PERCENTILES)
    worst = worst_cells(take, error_C)
    rows_of_worst = max(-(-worst.size // columns), 1)
    groups = [np.flatnonzero(group_C == g) for g in range(len(CLASSES))]
    picture = figure(13.2, 0.65 + _ROW_IN * (rows_of_worst + len(groups)))
    picture.set_layout_engine("none")
    _draw_heading(picture)
    above = picture.get_figheight() - 0.55
    for row in range(rows_of_worst):
        part = worst[row * columns : (row + 1) * columns]
        label = f"the worst of\n{error_C.size:,}" if row == 0 else ""
        above = _draw_cells(picture, above, codec, take(part), error_C[part], label, [""] * part.size)
    for name, members in zip(GROUP_NAMES, groups, strict=True):
        chosen, marks = typical_cells(members, error_C)
        label = f"{name}\n{percent(members.size / max(error_C.size, 1))}\nof cells"
        above = _draw_cells(picture, above, codec, take(chosen), error_C[chosen], label, marks)
    picture.savefig(path, dpi=_DPI)


def _draw_heading(picture: Figure) -> None:
    height = picture.get_figheight()
    picture.text(0.015, 1 - 0.15 / height, "Velocities as played and as decoded", size=13, va="top")
    error = "error: mean |decoded − played| over the frames that sound in a cell"
    picture.text(0.31, 1 - 0.18 / height, error, size=10, va="top", color=GREY)
    lines = [Line2D([], [], color=_PLAYED, linewidth=3), Line2D([], [], color=_DECODED, linewidth=1.6)]
    picture.legend(
        [*lines, Patch(color=_ERROR)],
        ["played", "decoded", "error"],
        loc="upper right",
        bbox_to_anchor=(0.995, 1 - 0.06 / height),
        ncols=3,
        frameon=False,
        fontsize=10,
    )


def worst_cells(take: TakeCells, error_C: NDArray[np.floating]) -> NDArray[np.int64]:
    """Indices of the `WORST` cells with the largest errors, all different."""
    order = np.argsort(-error_C, kind="stable")[:_CANDIDATES]
    cells = take(order)
    index_of: dict[tuple[int, int, bytes], int] = {}
    for i, index in enumerate(order.tolist()):
        low, high = cells.segment_offset[i : i + 2]
        key = (int(cells.sustain[i]), int(cells.onset[i]), cells.segment_velocity[low:high].tobytes())
        index_of.setdefault(key, index)
    return np.array(list(index_of.values())[:WORST], np.int64)


def typical_cells(
    members: NDArray[np.int64], error_C: NDArray[np.floating]
) -> tuple[NDArray[np.int64], list[str]]:
    """The members of a group at the percentiles of their errors, and names of these; each member once."""
    if not members.size:
        return members, []
    order = members[np.argsort(error_C[members], kind="stable")]
    ranks = [int(p / 100 * (members.size - 1) + 0.5) for p in PERCENTILES]
    percentile_of = dict(zip(ranks, PERCENTILES, strict=True))
    return order[list(percentile_of)], [
        "median" if p == 50 else f"{p}th pct." for p in percentile_of.values()
    ]


def _draw_cells(
    picture: Figure,
    above: float,
    codec: VelocityCodec,
    cells: Cells,
    error_C: NDArray[np.floating],
    label: str,
    marks: list[str],
) -> float:
    """Draws a labelled row of cells below the height `above` in inches; returns the height below the row."""
    left, wide, gap, head, high = 1.4, 1.84, 0.11, 0.26, _ROW_IN - 0.43
    width, height = picture.get_size_inches()
    bottom = above - head - high
    picture.text(0.2 / width, (bottom + high) / height, label, size=10, va="top", linespacing=1.4)
    codes = codec.encode(cells)
    decoded = codec.decode(codes, cells.sustain, cells.onset)
    for i, (code, error, mark) in enumerate(zip(codes.tolist(), error_C.tolist(), marks, strict=True)):
        box = (left + i * (wide + gap), bottom, wide, high)
        axes = picture.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        part = slice(int(cells.segment_offset[i]), int(cells.segment_offset[i + 1]))
        _draw_cell(axes, cells, i, cells.segment_velocity[part].astype(int), decoded[part].astype(int))
        axes.set_title(f"error {error:.1f}", loc="left", size=9, weight="bold", pad=3)
        axes.set_title(f"{mark}   code {code}".strip(), loc="right", size=8, color=GREY, pad=3)
        axes.tick_params(labelleft=i == 0)
    return above - _ROW_IN


def _draw_cell(axes: Axes, cells: Cells, i: int, played: NDArray[np.int_], decoded: NDArray[np.int_]) -> None:
    """Draws one cell: both velocities of each segment, the area between them, and marks at onsets."""
    starts = int(segment_starts(cells.sustain, cells.onset)[i])
    first = np.array([f for f in range(FRAMES) if starts >> f & 1])
    end = first + segment_lengths(cells.sustain[i : i + 1], cells.onset[i : i + 1])
    struck = [f for f in first.tolist() if int(cells.onset[i]) >> f & 1]
    axes.vlines(range(0, FRAMES + 1, 6), 0, _VELOCITIES, color="0.93", linewidth=0.6, zorder=0)
    axes.vlines(FRAMES // 2, 0, _VELOCITIES, color="0.85", linewidth=0.8, zorder=0)
    corners = [
        [(a, p), (b, p), (b, d), (a, d)] for a, b, p, d in zip(first, end, played, decoded, strict=True)
    ]
    axes.add_collection(PolyCollection(corners, facecolors=_ERROR, linewidths=0, zorder=1))
    axes.hlines(played, first, end, color=_PLAYED, linewidth=3.0, zorder=2)
    axes.hlines(decoded, first, end, color=_DECODED, linewidth=1.6, zorder=3)
    axes.vlines(struck, 0, 9, color=_PLAYED, linewidth=1.2, zorder=2)
    axes.set(xlim=(-0.5, FRAMES + 0.5), ylim=(0, _VELOCITIES), xticks=[], yticks=(0, 32, 64, 96, 128))
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="y", color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_color(LINE_COLOUR)
