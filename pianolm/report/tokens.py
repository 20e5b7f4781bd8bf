"""A picture of some beats of a piece on the way to token ids: its notes, its cells, its codes and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, FancyBboxPatch
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece
from pianolm.report.bar_tokens import TOKEN_POINTS, BarToken, PlacedToken, arrange_tokens, beat_tokens
from pianolm.report.patterns import (
    GREY,
    LEVEL_COLOURS,
    LINE_COLOUR,
    NEUTRAL_COLOUR,
    Box,
    Corners,
    PatternDrawing,
    axes_in_inches,
    darker,
    paler,
    pitch_name,
)
from pianolm.report.piano_roll import figure
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

_DPI = 110
_LEFT_IN, _RIGHT_IN, _GAP_IN, _TOP_IN = 0.6, 0.75, 0.5, 0.4
_LINE_IN = 0.205
_TOKEN_COLOURS = {
    **dict.fromkeys((Kind.TEMPO, Kind.TUNING, Kind.BAR, Kind.DURATION), "#8c8c8c"),
    Kind.PITCH: "#3b3b3b",
    Kind.VELOCITY: "#7a5195",
    **LEVEL_COLOURS,
}


PANELS = ("notes", "cells", "codes", "tokens")
"""The parts of the picture from top to bottom."""


def save_bar(
    piece: Piece,
    tokenizer: PianoTokenizer,
    path: str | Path,
    first_beat: int,
    n_beats: int = 4,
    title: str = "",
) -> None:
    """Draws some beats of a piece four times: its notes in time, its cells, its codes, its tokens.

    The tokens are those of `tokenizer.encode` for the whole piece, cut to these beats.

    Args:
        piece: The music.
        tokenizer: A tokenizer of either mode.
        path: PNG to write.
        first_beat: First beat, counted from 0.
        n_beats: Number of beats; fewer are drawn where the piece ends before.
        title: Title of the picture.

    Raises:
        UserError: The piece has no such beat.
    """
    bar = _arrange(piece, tokenizer, first_beat, n_beats)
    picture, panels = _make_panels(bar, PANELS, title)
    for name, axes in zip(PANELS, panels, strict=True):
        axes.set_title(
            _draw(bar, name, picture, axes), loc="left", size=10, bbox={"color": "white", "pad": 1}
        )
    times = piece.beats_sec[first_beat : first_beat + bar.n_beats + 1]
    _connect_beats(picture, panels[0], panels[1], times)
    picture.savefig(path, dpi=_DPI)


def save_panels(
    piece: Piece, tokenizer: PianoTokenizer, folder: Path, first_beat: int, n_beats: int = 4
) -> None:
    """Draws the parts of `save_bar` as pictures of their own: `notes.png`, `cells.png`, `codes.png`, `tokens.png`."""
    bar = _arrange(piece, tokenizer, first_beat, n_beats)
    for name in PANELS:
        picture, (axes,) = _make_panels(bar, (name,), "")
        axes.set_title(_draw(bar, name, picture, axes), loc="left", size=10)
        picture.savefig(folder / f"{name}.png", dpi=_DPI)


@dataclass(frozen=True)
class _Bar:
    """What is drawn.

    Attributes:
        piece: The music.
        first_beat: First beat of it.
        n_beats: Number of beats.
        tokens: Tokens of each beat.
        per_pitch: What follows a pitch, in words.
        rows: Rows of its cells in `piece.cells`.
        pitches: Pitches of these, ascending.
        beat_in: Width of a beat in inches.
        lines: The tokens of each beat on their lines.
    """

    piece: Piece
    first_beat: int
    n_beats: int
    tokens: list[list[BarToken]]
    per_pitch: str
    rows: NDArray[np.int64]
    pitches: NDArray[np.uint8]
    beat_in: float
    lines: list[list[PlacedToken]]

    @property
    def token_lines(self) -> int:
        """Lines of the beat with most of them."""
        return max(max(placed[-1].line for placed in self.lines) + 1, 2)

    @property
    def heights_in(self) -> dict[str, float]:
        """Height of each panel in inches."""
        pitch_rows = max(self.pitches.size, 1)
        heights = (1.75, 0.29 * pitch_rows, 0.44 * pitch_rows, _LINE_IN * self.token_lines + 0.1)
        return dict(zip(PANELS, heights, strict=True))


def _arrange(piece: Piece, tokenizer: PianoTokenizer, first_beat: int, n_beats: int) -> _Bar:
    """Raises `UserError` where the piece has no such beat."""
    if not 0 <= first_beat < piece.n_beats or n_beats < 1:
        raise UserError(
            f"save_bar: first_beat={first_beat}, n_beats={n_beats} found, expected at least one of the piece's "
            f"beats 0–{piece.n_beats - 1}"
        )
    n_beats = min(n_beats, piece.n_beats - first_beat)
    beats = beat_tokens(tokenizer, tokenizer.encode(piece).ids, first_beat, n_beats)
    rows = np.arange(*np.searchsorted(piece.cells.beat, [first_beat, first_beat + n_beats]))
    beat_in = max(2.7, 10.8 / n_beats)
    return _Bar(
        piece,
        first_beat,
        n_beats,
        beats,
        "its codes" if tokenizer.codec is None else "its codes and its velocity",
        rows,
        np.unique(piece.cells.pitch[rows]),
        beat_in,
        [arrange_tokens(tokens, beat_in - 0.12) for tokens in beats],
    )


def _draw(bar: _Bar, name: str, picture: Figure, axes: Axes) -> str:
    """Draws a panel; returns its heading."""
    if name == "notes":
        _draw_roll(picture, axes, bar.piece, bar.first_beat, bar.n_beats)
        struck = int(np.bitwise_count(bar.piece.cells.onset[bar.rows]).sum())
        return f"Notes in seconds: {struck} struck"
    if name == "tokens":
        axes.set(xlim=(0, bar.n_beats), ylim=(_LINE_IN * bar.token_lines + 0.1, 0))
        _draw_tokens(axes, bar.lines, bar.beat_in)
        count = sum(map(len, bar.tokens))
        return (
            f"Tokens: {count}, read line by line, beat by beat: tempo, then for every pitch {bar.per_pitch}"
        )
    _draw_pitch_rows(axes, bar.pitches, bar.n_beats)
    if name == "cells":
        _draw_cells(axes, bar.piece, bar.rows, bar.pitches, bar.first_beat, bar.beat_in)
        return f"Cells: {bar.rows.size} pairs of beat and pitch, {FRAMES} frames a beat; black: struck, pale: held over"
    n_codes = _draw_codes(axes, bar.tokens, bar.pitches, bar.beat_in)
    return f"Codes: {n_codes}, each with the frames it stands for"


def _make_panels(bar: _Bar, names: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    """A figure with axes for some panels from top to bottom."""
    heights = [bar.heights_in[name] for name in names]
    top_in = _TOP_IN if title else 0.0
    width = _LEFT_IN + bar.beat_in * bar.n_beats + _RIGHT_IN
    height = top_in + sum(heights) + _GAP_IN * len(names) + 0.05
    picture = figure(width, height)
    picture.set_layout_engine("none")
    picture.text(_LEFT_IN / width, 1 - 0.12 / height, title, size=13, va="top")
    panels, top = [], height - top_in
    for size_in in heights:
        top -= _GAP_IN + size_in
        panels.append(axes_in_inches(picture, (_LEFT_IN, top, bar.beat_in * bar.n_beats, size_in)))
    return picture, panels


def _draw_roll(picture: Figure, axes: Axes, piece: Piece, first_beat: int, n_beats: int) -> None:
    """The notes that sound in these beats, with a colour bar to the right of the axes."""
    times = piece.beats_sec[first_beat : first_beat + n_beats + 1]
    notes = piece.notes[(piece.notes["onset_sec"] < times[-1]) & (piece.notes["offset_sec"] > times[0])]
    start, stop = np.maximum(notes["onset_sec"], times[0]), np.minimum(notes["offset_sec"], times[-1])
    pitch = notes["pitch"].astype(float)
    low, high = (pitch.min() - 2, pitch.max() + 2) if notes.size else (58.0, 74.0)
    axes.set(xlim=(times[0], times[-1]), ylim=(low, high))
    axes.vlines(times, low, high, color=LINE_COLOUR, linewidth=0.8, zorder=0)
    half = max(0.45, 0.016 * (high - low))  # in a wide range a semitone is too thin to show its colour
    scale = ScalarMappable(Normalize(20, 110), colormaps["viridis"])
    corners = [
        [(a, p - half), (b, p - half), (b, p + half), (a, p + half)]
        for a, b, p in zip(start.tolist(), stop.tolist(), pitch.tolist(), strict=True)
    ]
    colours = scale.to_rgba(notes["velocity"].astype(float))
    axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="white", linewidths=0.4))
    octaves = [p for p in range(0, 128, 12) if low <= p <= high]
    ticks = octaves if len(octaves) > 1 else sorted({*octaves, *np.rint([low + 2, high - 2]).astype(int)})
    axes.set_yticks(ticks, [pitch_name(p) for p in ticks], size=8)
    axes.set_xticks(times, [f"{time:.2f} s" for time in times], size=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    _show_frame(axes)
    _draw_velocity_scale(picture, axes, scale)


def _draw_velocity_scale(picture: Figure, axes: Axes, scale: ScalarMappable) -> None:
    box, width_in = axes.get_position(), picture.get_figwidth()
    scale_axes = picture.add_axes((box.x1 + 0.12 / width_in, box.y0, 0.1 / width_in, box.height))
    picture.colorbar(scale, cax=scale_axes)
    scale_axes.set_ylabel("velocity", size=8)
    scale_axes.tick_params(labelsize=8, length=2)


def _draw_pitch_rows(axes: Axes, pitches: NDArray[np.uint8], n_beats: int) -> None:
    """A row for each pitch that occurs, the highest on top, and a line at each beat."""
    rows = max(pitches.size, 1)
    axes.set(xlim=(0, n_beats), ylim=(0, rows))
    axes.hlines(np.arange(1, rows), 0, n_beats, color="0.9", linewidth=0.5, zorder=0)
    axes.vlines(np.arange(n_beats + 1), 0, rows, color=LINE_COLOUR, linewidth=0.8, zorder=0)
    axes.set_yticks(np.arange(pitches.size) + 0.5, [pitch_name(p) for p in pitches.tolist()], size=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    _show_frame(axes)
    if not pitches.size:
        axes.text(n_beats / 2, 0.5, "no notes in these beats", size=9, ha="center", va="center", color=GREY)


def _draw_cells(
    axes: Axes,
    piece: Piece,
    rows: NDArray[np.int64],
    pitches: NDArray[np.uint8],
    first_beat: int,
    beat_in: float,
) -> None:
    """The patterns of the cells, each over its 48 frames."""
    cells, drawing = piece.cells, PatternDrawing(min_onset_width=0.0, notch=0.06 / beat_in)
    for row in rows:
        x, y = float(cells.beat[row] - first_beat), float(np.searchsorted(pitches, cells.pitch[row]))
        pattern = int(cells.sustain[row]), int(cells.onset[row])
        drawing.add(*pattern, FRAMES, (x, y + 0.06, 1.0, 0.88), NEUTRAL_COLOUR)
    drawing.draw_boxes(axes, 8)
    lines = [frame_line for box in drawing.boxes for frame_line in _frame_lines(box)]
    axes.add_collection(LineCollection(lines, colors="0.86", linewidths=0.3))
    drawing.draw(axes)


def _frame_lines(box: Box) -> list[Corners]:
    x, y, width, height = box
    return [[(x + width * f / FRAMES, y), (x + width * f / FRAMES, y + height)] for f in range(FRAMES)]


def _draw_codes(axes: Axes, beats: list[list[BarToken]], pitches: NDArray[np.uint8], beat_in: float) -> int:
    """The named parts of the cells that each code stands for; returns the number of codes."""
    codes = [(beat, t) for beat, tokens in enumerate(beats) for t in tokens if t.kind in CODE_KINDS]
    drawing = PatternDrawing(min_onset_width=0.0, notch=0.05 / beat_in)
    corners: list[Corners] = []
    inset = 0.02 / beat_in
    for beat, token in codes:
        row, eighths = float(np.searchsorted(pitches, token.pitch)), EIGHTHS_OF_KIND[token.kind]
        x, width = beat + token.eighth / 8 + inset, eighths / 8 - 2 * inset
        corners.append([(x, row + 0.04), (x + width, row + 0.04), (x + width, row + 0.96), (x, row + 0.96)])
        colour, size = LEVEL_COLOURS[token.kind], 8 if eighths > 1 else 6
        drawing.add(token.sustain, token.onset, 6 * eighths, (x, row + 0.1, width, 0.36), colour)
        label = axes.text(x + width / 2, row + 0.7, token.label, size=size, ha="center", va="center")
        label.set(color=darker(colour), zorder=5)
    edges = [LEVEL_COLOURS[token.kind] for _, token in codes]
    fills = [paler(colour, 0.84) for colour in edges]
    axes.add_collection(PolyCollection(corners, facecolors=fills, edgecolors=edges, linewidths=0.8, zorder=2))
    drawing.draw(axes)
    return len(codes)


def _draw_tokens(axes: Axes, lines: list[list[PlacedToken]], beat_in: float) -> None:
    """The tokens as coloured labels, a column for each beat."""
    axes.set_axis_off()
    height = _LINE_IN - 0.04
    for beat, beat_line in enumerate(lines):
        for placed in beat_line:
            left, top = beat + (placed.left + 0.06) / beat_in, 0.08 + placed.line * _LINE_IN
            width, colour = placed.width / beat_in, _TOKEN_COLOURS[placed.token.kind]
            label = FancyBboxPatch((left, top), width, height, boxstyle="square,pad=0", linewidth=0.6)
            label.set(facecolor=paler(colour, 0.84), edgecolor=colour)
            axes.add_patch(label)
            axes.text(
                left + width / 2,
                top + height / 2,
                placed.token.label,
                size=TOKEN_POINTS,
                family="DejaVu Sans Mono",
                ha="center",
                va="center_baseline",
                color=darker(colour),
            )


def _connect_beats(picture: Figure, roll: Axes, cells: Axes, beats_sec: NDArray[np.float64]) -> None:
    """Lines from the beats in seconds to the beats of equal width."""
    for beat, time in enumerate(beats_sec):
        ends = (time, roll.get_ylim()[0]), (beat, cells.get_ylim()[1])
        line = ConnectionPatch(*ends, roll.transData, cells.transData, zorder=-1)
        line.set(color=LINE_COLOUR, linewidth=0.8)
        picture.add_artist(line)


def _show_frame(axes: Axes) -> None:
    axes.spines[:].set(visible=True, color=LINE_COLOUR)
