"""Pictures: piano rolls, drawn without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from pianolm.music.piece import Piece

_CMAP = "viridis"


def figure(width: float, height: float) -> Figure:
    """An empty figure in inches that can be saved without a display."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save_piano_roll(piece: Piece, path: str | Path, title: str = "") -> None:
    """Draws a piece: a bar a note, velocity as colour, a line a beat, the tempo below.

    Args:
        piece: At least one beat long.
        path: PNG to write.
        title: Above the picture.
    """
    drawn = figure(14, 5)
    roll, tempo = drawn.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    _draw_roll(drawn, roll, piece)
    roll.set_title(title)
    beats = piece.beats_sec
    tempo.stairs(60 / np.diff(beats), beats, color="tab:red")
    tempo.set_ylabel("BPM")
    tempo.set_xlabel("seconds")
    tempo.set_xlim(beats[0], beats[-1])
    drawn.savefig(path, dpi=80)


def _draw_roll(drawn: Figure, axes: Axes, piece: Piece) -> None:
    notes, beats = piece.notes, piece.beats_sec
    onset, offset, pitch = notes["onset_sec"], notes["offset_sec"], notes["pitch"].astype(float)
    low, high = pitch - 0.45, pitch + 0.45
    corners = np.stack(
        [
            np.stack([onset, low], 1),
            np.stack([onset, high], 1),
            np.stack([offset, high], 1),
            np.stack([offset, low], 1),
        ],
        axis=1,
    )
    axes.vlines(beats, 0, 127, color="0.85", linewidth=0.5, zorder=0)
    bars = PolyCollection(list(corners), array=notes["velocity"].astype(float), cmap=_CMAP, clim=(20, 110))
    axes.add_collection(bars)
    if notes.size:
        axes.set_ylim(pitch.min() - 3, pitch.max() + 3)
    axes.set_ylabel("MIDI pitch")
    drawn.colorbar(bars, ax=axes, label="velocity", pad=0.01)
