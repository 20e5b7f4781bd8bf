"""Draws piano rolls, without a display."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pianolm.music.piece import Piece

_WIDTH_IN, _MAX_WIDTH_IN, _IN_PER_SEC = 14.0, 60.0, 0.3
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN = 0.62, 0.95, 0.45, 0.52, 0.12
_TEMPO_IN, _MIN_ROLL_IN, _PITCH_IN = 0.75, 3.2, 0.085
_LABEL_IN = 0.45
_MARGIN_PITCHES = 3  # above the highest note there is space for the prompt label
_BLACK_KEYS = (1, 3, 6, 8, 10)
_VELOCITIES = (20, 110)
_TICK_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 1000)
_TITLE_IN = 0.3
_DPI = 130


_GROUND, _TEXT = "#ffffff", "#222222"
_BLACK_KEY, _BEAT, _BAR, _PROMPT, _TEMPO = "#f4f4f4", "#dedede", "#a0a0a0", "#e6edf7", "#c0392b"
_VELOCITY = ListedColormap(colormaps["viridis"](np.linspace(0.9, 0.0, 256)))
"""Louder notes contrast more with the ground."""


def figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches that can be saved without a display."""
    empty = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(empty)
    return empty


@dataclass(frozen=True)
class RollImage:
    """A drawn piano roll.

    Attributes:
        image: The picture in RGB, below a title if there is one.
        title_px: Rows of the title.
        box: See `draw_piano_roll`.
        width_in: Width in inches.
    """

    image: Image.Image
    title_px: int
    box: tuple[float, float, float, float]
    width_in: float

    def without_title(self) -> RollImage:
        """What lies below the title."""
        height, (left, top, right, bottom) = self.image.height, self.box
        top, bottom = ((y * height - self.title_px) / (height - self.title_px) for y in (top, bottom))
        below = self.image.crop((0, self.title_px, *self.image.size))
        return RollImage(below, 0, (left, top, right, bottom), self.width_in)


def piano_roll_image(
    piece: Piece,
    title: str = "",
    prompt_end_beat: int = 0,
    gap: tuple[int, int] | None = None,
) -> RollImage:
    """Draws a piece; see `draw_piano_roll` for the arguments."""
    picture, box = draw_piano_roll(piece, printable(title), prompt_end_beat, gap)
    with warnings.catch_warnings():
        # a title in a script that no installed font has
        warnings.filterwarnings("ignore", "Glyph .* missing")
        image = figure_image(picture)
    return RollImage(image, round(_TITLE_IN * _DPI) if title else 0, box, picture.get_figwidth())


def figure_image(drawn: Figure) -> Image.Image:
    """A figure as an RGB picture."""
    drawn.set_dpi(_DPI)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def save_piano_roll(
    piece: Piece,
    path: str | Path,
    title: str = "",
    prompt_end_beat: int = 0,
    gap: tuple[int, int] | None = None,
) -> RollImage:
    """Draws a piece into a PNG file, and returns what it has drawn; see `draw_piano_roll` for the arguments."""
    roll = piano_roll_image(piece, title, prompt_end_beat, gap=gap)
    roll.image.save(path, "png", dpi=(_DPI, _DPI))
    return roll


def printable(text: str) -> str:
    """Text with a name of a file in it; bytes of the name that are not UTF-8 become replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def draw_piano_roll(
    piece: Piece,
    title: str = "",
    prompt_end_beat: int = 0,
    gap: tuple[int, int] | None = None,
) -> tuple[Figure, tuple[float, float, float, float]]:
    """Draws notes as bars coloured by velocity, with lines at beats and bars, and the tempo below.

    Time counts from the first beat, as in the MIDI file and the audio. The picture is wider for a long piece.

    Args:
        piece: A piece of at least one beat.
        title: Title of the picture.
        prompt_end_beat: Beats of the prompt at the beginning of the piece, which are shaded.
        gap: First beat, and the beat after the last, of a gap, which is shaded; None for none.

    Returns:
        The figure, and the box of the axes from first to last beat: left, top, right and bottom as fractions of the
        figure's width and height, from the top left.
    """
    beats_sec = piece.beats_sec - piece.beats_sec[0]
    low, high = _pitch_range(piece)
    roll_in = max(_MIN_ROLL_IN, (high - low) * _PITCH_IN)
    width = float(np.clip(beats_sec[-1] * _IN_PER_SEC, _WIDTH_IN, _MAX_WIDTH_IN))
    height = _BOTTOM_IN + _TEMPO_IN + _GAP_IN + roll_in + _TOP_IN + (_TITLE_IN if title else 0)
    picture, roll, tempo, scale = _make_axes(width, height, roll_in)
    notes = _draw_notes(roll, piece)
    picture.colorbar(notes, cax=scale)
    scale.set_ylabel("velocity", color=_TEXT)
    _draw_keys(roll, low, high)
    most_labels = max(int((width - _LEFT_IN - _RIGHT_IN) / _LABEL_IN), 1)
    _draw_grid((roll, tempo), most_labels, beats_sec, piece.bar_starts)
    _draw_tempo(tempo, beats_sec)
    if prompt_end_beat > 0:
        _shade((roll, tempo), (0.0, float(beats_sec[min(prompt_end_beat, piece.n_beats)])), "prompt")
    if gap is not None:
        _shade((roll, tempo), (float(beats_sec[gap[0]]), float(beats_sec[gap[1]])), "gap")
    tempo.set_xlim(0, beats_sec[-1])
    roll.tick_params(labelbottom=False, bottom=False)
    if title:
        left = _LEFT_IN / width
        picture.text(left, 1 - 0.12 / height, title, va="top", size=12, color=_TEXT, parse_math=False)
    top = _BOTTOM_IN + _TEMPO_IN + _GAP_IN + roll_in
    box = (_LEFT_IN / width, 1 - top / height, 1 - _RIGHT_IN / width, 1 - _BOTTOM_IN / height)
    return picture, box


def _make_axes(width: float, height: float, roll_in: float) -> tuple[Figure, Axes, Axes, Axes]:
    """A figure with axes for the notes, for the tempo below them, and for the velocity scale."""
    picture = figure(width, height)
    picture.set_layout_engine("none")
    picture.set_facecolor(_GROUND)
    left, across = _LEFT_IN / width, 1 - (_LEFT_IN + _RIGHT_IN) / width
    bottom = (_BOTTOM_IN + _TEMPO_IN + _GAP_IN) / height
    tempo = picture.add_axes((left, _BOTTOM_IN / height, across, _TEMPO_IN / height))
    roll = picture.add_axes((left, bottom, across, roll_in / height), sharex=tempo)
    scale = picture.add_axes((1 - 0.78 / width, bottom, 0.13 / width, roll_in / height))
    for axes in (tempo, roll, scale):
        axes.set_facecolor(_GROUND)
        axes.tick_params(colors=_TEXT, labelsize=9)
        axes.spines[:].set_color(_BAR)
    return picture, roll, tempo, scale


def _pitch_range(piece: Piece) -> tuple[int, int]:
    """Lowest and highest pitch to show: the range of the notes with margins, at least two octaves."""
    pitch = piece.notes["pitch"].astype(int)
    low, high = (int(pitch.min()), int(pitch.max())) if pitch.size else (60, 60)
    spare = max(24 - (high - low), 0)
    return max(low - spare // 2 - _MARGIN_PITCHES, 0), min(high + (spare + 1) // 2 + _MARGIN_PITCHES, 127)


def _draw_notes(axes: Axes, piece: Piece) -> PolyCollection:
    notes = piece.notes
    onset, offset = notes["onset_sec"] - piece.beats_sec[0], notes["offset_sec"] - piece.beats_sec[0]
    low, high = notes["pitch"] - 0.45, notes["pitch"] + 0.45
    corners = np.stack([onset, low, onset, high, offset, high, offset, low], axis=1).reshape(-1, 4, 2)
    bars = PolyCollection(
        list(corners), array=notes["velocity"].astype(float), cmap=_VELOCITY, clim=_VELOCITIES
    )
    bars.set(edgecolor=_GROUND, linewidth=0.4, zorder=3)
    axes.add_collection(bars, autolim=False)
    return bars


def _draw_keys(axes: Axes, low: int, high: int) -> None:
    """Shades the rows of black keys and names every C."""
    for pitch in range(low, high + 1):
        if pitch % 12 in _BLACK_KEYS:
            axes.axhspan(pitch - 0.5, pitch + 0.5, color=_BLACK_KEY, linewidth=0, zorder=0)
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set_ylim(low - 0.5, high + 0.5)
    axes.set_ylabel("pitch", color=_TEXT)


def _draw_grid(
    panels: tuple[Axes, Axes], labels: int, beats_sec: NDArray[np.float64], bars: NDArray[np.intp]
) -> None:
    """Draws lines at beats and bars, and above at most `labels` numbers of bars, or of beats if no bar is known."""
    for axes in panels:
        for at_sec, colour, order in ((beats_sec, _BEAT, 1), (beats_sec[bars], _BAR, 2)):
            lines = axes.vlines(at_sec, 0, 1, transform=axes.get_xaxis_transform())
            lines.set(color=colour, linewidth=0.6, zorder=order)
    has_bars = bars.size > 0
    at_sec = beats_sec[bars] if has_bars else beats_sec
    step = next((step for step in _TICK_STEPS if at_sec.size / step <= labels), _TICK_STEPS[-1])
    if not has_bars:
        step = max(step, 4)
    numbers = np.arange(at_sec.size)[::step]
    above = panels[0].secondary_xaxis("top")
    above.set_xticks(at_sec[numbers], [str(number + 1 if has_bars else number) for number in numbers])
    above.tick_params(colors=_TEXT, labelsize=9, length=3)
    above.spines[:].set_color(_BAR)
    panels[0].annotate(
        "bars" if has_bars else "beats",
        (0, 1),
        (-10, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        size=9,
        color=_TEXT,
    )


def _draw_tempo(axes: Axes, beats_sec: NDArray[np.float64]) -> None:
    tempo_bpm = 60 / np.diff(beats_sec)
    axes.stairs(tempo_bpm, beats_sec, color=_TEMPO, linewidth=1.2, baseline=None, zorder=3)
    middle, half = (tempo_bpm.max() + tempo_bpm.min()) / 2, max(np.ptp(tempo_bpm) * 0.6, 10)
    axes.set_ylim(max(middle - half, 0), middle + half)
    axes.set_ylabel("BPM", color=_TEXT)
    axes.set_xlabel("seconds", color=_TEXT)


def _shade(panels: tuple[Axes, Axes], span_sec: tuple[float, float], word: str) -> None:
    """Shades the time from one second to another, with a word at its end."""
    for axes in panels:
        axes.axvspan(*span_sec, color=_PROMPT, linewidth=0, zorder=0.5)
        for edge_sec in (edge for edge in span_sec if edge > 0):
            axes.axvline(edge_sec, color=_TEXT, linewidth=1, linestyle=(0, (4, 3)), zorder=2.5)
    panels[0].annotate(
        word,
        (span_sec[1], 1),
        (-5, -5),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        size=9,
        color=_TEXT,
        zorder=4,
    )
