"""Draws several ways in which a prompt goes on, one row of piano rolls for each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece
from pianolm.report.piano_roll import figure

_WIDTH_IN, _ROW_IN = 13.0, 1.75
_VELOCITIES = (10, 115)


def draw_side_by_side(
    rows: Mapping[str, Mapping[str, Piece]], prompt_beats: int, bar_beats: Sequence[int]
) -> Figure:
    """Piano rolls on beats, dark where loud; the prompt is shaded.

    Args:
        rows: By name, the sides of each row by name; all rows have as many.
        prompt_beats: Length of the prompts.
        bar_beats: Length of the bars of each row.
    """
    columns = len(next(iter(rows.values())))
    drawn = figure(_WIDTH_IN, _ROW_IN * len(rows))
    grid = drawn.subplots(len(rows), columns, sharex=True, sharey="row", squeeze=False)
    beats = max(side.n_beats for sides in rows.values() for side in sides.values())
    for line, (name, sides), bar in zip(grid, rows.items(), bar_beats, strict=True):
        for axes, (side, piece) in zip(line, sides.items(), strict=True):
            _draw_roll(axes, piece, prompt_beats, bar, beats)
            axes.set_title(f"{name}: {side}", loc="left", size=9, parse_math=False)
        pitch = np.concatenate([piece.notes["pitch"] for piece in sides.values()]).astype(int)
        octaves = range(12 * (pitch.min() // 12), pitch.max() + 13, 12)
        line[0].set_yticks(octaves, [f"C{octave // 12 - 1}" for octave in octaves])
        line[0].set_ylim(pitch.min() - 2, pitch.max() + 2)
    for axes in grid[-1]:
        axes.set_xlabel("beats", size=9)
    return drawn


def _draw_roll(axes: Axes, piece: Piece, prompt_beats: int, bar_beats: int, beats: int) -> None:
    notes = piece.frame_notes
    onset, end = notes["onset"] / FRAMES, notes["end"] / FRAMES
    low, high = notes["pitch"] - 0.45, notes["pitch"] + 0.45
    corners = np.stack([onset, low, onset, high, end, high, end, low], axis=1).reshape(-1, 4, 2)
    painted = PolyCollection(
        list(corners), array=notes["velocity"].astype(float), cmap="viridis_r", clim=_VELOCITIES
    )
    axes.add_collection(painted, autolim=False)
    axes.axvspan(0, prompt_beats, color="#e6edf7", zorder=0)
    bars = axes.vlines(np.arange(0, beats + 1, bar_beats), 0, 1, transform=axes.get_xaxis_transform())
    bars.set(color="#cccccc", linewidth=0.6, zorder=0.5)
    axes.set_xlim(0, beats)
    axes.tick_params(labelsize=8, length=2)
