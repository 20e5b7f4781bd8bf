"""Draws patterns of frames, and the small drawing helpers that the pictures of tokens share.

A pattern looks the same in every picture: a dark block in every frame with an onset, a bar over the sounding frames,
and a pale bar with a notch where the cell begins with a note held over from before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pianolm.tokenizer.vocabulary import CODE_KINDS

LEVEL_COLOURS = dict(zip(CODE_KINDS, ("#0072B2", "#009E73", "#E69F00", "#CC79A7"), strict=True))
"""Colours of L1 to L4, distinguishable with colour blindness."""
NEUTRAL_COLOUR, LINE_COLOUR, GREY = "#5c7f9e", "#c9c9c9", "#6b6b6b"
_ONSET_COLOUR, _BACKGROUND = "#1b1b1b", "#f1f1f1"
_PITCH_NAMES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")

Corners = list[tuple[float, float]]
Box = tuple[float, float, float, float]
"""(left, top, width, height) in units of the axes."""


@dataclass
class PatternDrawing:
    """Patterns placed on axes whose vertical axis points down, collected so that they are drawn together.

    Attributes:
        min_onset_width: Least width of an onset, in units of the axes.
        notch: Depth of the notch of a held note, in units of the axes.
        boxes: Boxes of the patterns placed so far.
    """

    min_onset_width: float
    notch: float
    boxes: list[Box] = field(default_factory=list)
    _bars: list[Corners] = field(default_factory=list)
    _fills: list[tuple[float, float, float]] = field(default_factory=list)
    _edges: list[tuple[float, float, float, float]] = field(default_factory=list)
    _onsets: list[Corners] = field(default_factory=list)

    def add(self, sustain: int, onset: int, frames: int, box: Box, colour: str) -> None:
        """Places a pattern of `frames` frames into a box."""
        x, y, width, height = box
        frame_width = width / frames
        top, bottom = y + 0.2 * height, y + 0.8 * height
        self.boxes.append(box)
        for start, end, struck in note_runs(sustain, onset, frames):
            a, b = x + start * frame_width, x + end * frame_width
            corners = [(a, top), (b, top), (b, bottom), (a, bottom)]
            if not struck:
                corners.append((a + min(self.notch, 0.35 * (b - a)), y + 0.5 * height))
            self._bars.append(corners)
            self._fills.append(to_rgb(colour) if struck else paler(colour, 0.65))
            self._edges.append((*to_rgb(colour), 0.0 if struck else 1.0))
            if struck:
                right = a + max(frame_width, self.min_onset_width)
                self._onsets.append([(a, y), (right, y), (right, y + height), (a, y + height)])

    def draw(self, axes: Axes) -> None:
        """Draws the patterns."""
        axes.add_collection(
            PolyCollection(
                self._bars, facecolors=self._fills, edgecolors=self._edges, linewidths=0.5, zorder=3
            )
        )
        axes.add_collection(
            PolyCollection(
                self._onsets, facecolors=_ONSET_COLOUR, edgecolors="white", linewidths=0.3, zorder=4
            )
        )

    def draw_boxes(self, axes: Axes, parts: int) -> None:
        """Draws the light boxes behind the patterns, divided by lines into `parts`."""
        corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in self.boxes]
        axes.add_collection(
            PolyCollection(corners, facecolors=_BACKGROUND, edgecolors=LINE_COLOUR, linewidths=0.5)
        )
        for middle in (False, True):
            at = [part for part in range(1, parts) if (2 * part == parts) == middle]
            lines = [
                [(x + w * p / parts, y), (x + w * p / parts, y + h)] for x, y, w, h in self.boxes for p in at
            ]
            colour, width = ("#9a9a9a", 0.9) if middle else (LINE_COLOUR, 0.5)
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=width))


def note_runs(sustain: int, onset: int, frames: int) -> list[tuple[int, int, bool]]:
    """Notes of a pattern as (first frame, end frame, struck); each onset begins a new note."""
    runs: list[tuple[int, int, bool]] = []
    for frame in range(frames):
        if not sustain >> frame & 1:
            continue
        struck = bool(onset >> frame & 1)
        if runs and runs[-1][1] == frame and not struck:
            runs[-1] = (runs[-1][0], frame + 1, runs[-1][2])
        else:
            runs.append((frame, frame + 1, struck))
    return runs


def axes_in_inches(figure: Figure, box: Box) -> Axes:
    """Axes without frame and ticks at (left, bottom, width, height) in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def pitch_name(pitch: int) -> str:
    """Name of a MIDI pitch: `C4` for 60."""
    return f"{_PITCH_NAMES[pitch % 12]}{pitch // 12 - 1}"


def percent(share: float) -> str:
    """A share between 0 and 1 in percent."""
    value = 100 * float(share)
    return f"{value:.1f} %" if value >= 1 else f"{value:.2f} %" if value >= 0.1 else f"{value:.2g} %"


def paler(colour: str, amount: float) -> tuple[float, float, float]:
    """A colour mixed with white; `amount` 1 is white."""
    red, green, blue = (part + (1 - part) * amount for part in to_rgb(colour))
    return red, green, blue


def darker(colour: str) -> tuple[float, float, float]:
    """A colour dark enough for text."""
    red, green, blue = (part * 0.62 for part in to_rgb(colour))
    return red, green, blue
