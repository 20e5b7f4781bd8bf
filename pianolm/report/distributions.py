"""Draws the distributions of several sides over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pianolm.report.piano_roll import figure

_COLUMNS, _WIDTH_IN, _ROW_IN = 4, 14.0, 2.7
_COLOURS = ("#c0392b", "#2c3e50", "#27ae60")
_LOG_RATIO = 8
"""Bins of a scale whose widest is this many times its narrowest are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Histograms:
    """One panel.

    Attributes:
        label: Of the axis, with the unit.
        title: Above the panel.
        edges: [K + 1] edges of the bins.
        counts: [K] counts by side.
    """

    label: str
    title: str
    edges: NDArray[np.float64]
    counts: Mapping[str, NDArray[np.int64]]


def draw_histograms(panels: Sequence[Histograms]) -> Figure:
    """A panel each, with the share of every bin."""
    rows = -(-len(panels) // _COLUMNS)
    drawn = figure(_WIDTH_IN, _ROW_IN * rows)
    grid = drawn.subplots(rows, _COLUMNS, squeeze=False).flat
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel)
    for axes in list(drawn.axes)[len(panels) :]:
        axes.set_visible(False)
    return drawn


def _draw(axes: Axes, panel: Histograms) -> None:
    used = np.flatnonzero(sum(panel.counts.values()))
    for (name, counts), colour in zip(panel.counts.items(), _COLOURS, strict=False):
        share = counts / max(counts.sum(), 1)
        axes.stairs(share, panel.edges, color=colour, label=name, linewidth=1.4)
        axes.stairs(share, panel.edges, color=colour, alpha=0.15, fill=True)
    if used.size:
        axes.set_xlim(panel.edges[used[0]], panel.edges[used[-1] + 1])
    widths = np.diff(panel.edges)
    if widths.max() > _LOG_RATIO * widths.min():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0)
    axes.set_xlabel(panel.label, size=9)
    axes.set_title(panel.title, size=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
