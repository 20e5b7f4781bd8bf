"""Pictures of tokens: the codes of a codebook, and one bar of music on its way to token ids.

A pattern is drawn the same way everywhere: a dark block in every frame that is struck, a bar over the frames that
sound, and a pale bar with a notch where the beginning is held over from before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, FancyBboxPatch
from numpy.typing import NDArray

from pianolm.errors import UserError
from pianolm.music.beats import FRAMES
from pianolm.music.piece import Piece
from pianolm.report.piano_roll import figure
from pianolm.tokenizer.codebook import LEVEL_FRAMES, Codebook
from pianolm.tokenizer.grammar import BETWEEN_CELLS
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import CODE_KINDS, EIGHTHS_OF_KIND, Kind

ATLAS_CODES = 48
"""Codes of each level in the atlas, if as many are used."""

LEVEL_COLOURS = dict(zip(CODE_KINDS, ("#0072B2", "#009E73", "#E69F00", "#CC79A7"), strict=True))
"""L1 to L4: four colours that remain distinct with colour-blind eyes."""

_DPI = 110
_COLUMNS = 12
_SPANS = ("a whole beat", "a half beat", "a quarter beat", "an eighth of a beat")
_STRUCK, _GROUND, _LINE, _GREY = "#1b1b1b", "#f1f1f1", "#c9c9c9", "#6b6b6b"
_NAMES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
_CHIP_POINTS, _LINE_IN = 7.5, 0.205
_CHAR_IN = 0.602 * _CHIP_POINTS / 72  # width of a letter of DejaVu Sans Mono
Corners = list[tuple[float, float]]


def save_codebook_atlas(codebook: Codebook, use_V: NDArray[np.int64], path: str | Path) -> None:
    """Draws the most used codes of L1 to L4 as their frames, with number and share of their level's use.

    Args:
        codebook: The codes.
        use_V: [V] how often each id of the vocabulary was used; only those of codes are read.
        path: PNG to write.
    """
    vocabulary = codebook.vocabulary
    counts = [use_V[vocabulary.ids(kind)] for kind in CODE_KINDS]
    shown = [_most_used(count) for count in counts]
    rows = [max(-(-codes.size // _COLUMNS), 1) for codes in shown]
    width, row_in, head_in, top_in = 12.0, 0.43, 0.36, 0.62
    height = top_in + sum(head_in + row_in * n for n in rows) + 0.15
    drawn = figure(width, height)
    drawn.set_layout_engine("none")
    total = int(sum(count.sum() for count in counts))
    drawn.text(
        0.2 / width, 1 - 0.16 / height, f"The codes used most often, of {total:,} counted", size=13, va="top"
    )
    _draw_key(_axes_in(drawn, (5.0, height - 0.46, width - 5.2, 0.32)), width - 5.2)
    above = height - top_in
    for depth, (kind, count, codes) in enumerate(zip(CODE_KINDS, counts, shown, strict=True)):
        size_in = row_in * rows[depth]
        axes = _axes_in(drawn, (0.2, above - head_in - size_in, width - 0.4, size_in))
        axes.set(xlim=(0, _COLUMNS), ylim=(rows[depth], 0))
        _draw_level(axes, codebook, depth, codes, count)
        used, share = int((count > 0).sum()), count.sum() / max(total, 1)
        drawn.text(
            0.2 / width,
            (above - head_in + 0.07) / height,
            f"{kind.name}  {_SPANS[depth]}, {LEVEL_FRAMES[depth]} frames",
            size=10.5,
            weight="bold",
            color=_darker(LEVEL_COLOURS[kind]),
        )
        drawn.text(
            1 - 0.2 / width,
            (above - head_in + 0.07) / height,
            f"{used} of {count.size} codes used · {_percent(share)} of all codes · "
            f"shown: {_percent(count[codes].sum() / max(count.sum(), 1))} of the level",
            size=9,
            ha="right",
            color=_GREY,
        )
        above -= head_in + size_in
    drawn.savefig(path, dpi=_DPI)


def save_bar(
    piece: Piece,
    tokenizer: PianoTokenizer,
    path: str | Path,
    first_beat: int,
    n_beats: int = 4,
    title: str = "",
) -> None:
    """Draws some beats of a piece four times: its notes in time, its cells, its codes, its tokens.

    The tokens are those that `tokenizer.encode` gives for the whole piece, cut to these beats.

    Args:
        piece: The music.
        tokenizer: Of either mode.
        path: PNG to write.
        first_beat: Beat to begin with, counted from 0.
        n_beats: How many beats; fewer are drawn where the piece ends sooner.
        title: Above the picture.

    Raises:
        UserError: The piece has no such beat.
    """
    if not 0 <= first_beat < piece.n_beats or n_beats < 1:
        raise UserError(
            f"save_bar: first_beat={first_beat}, n_beats={n_beats} found, expected at least one of the piece's "
            f"beats 0–{piece.n_beats - 1}"
        )
    n_beats = min(n_beats, piece.n_beats - first_beat)
    beats = _beats_of_tokens(tokenizer, tokenizer.encode(piece).ids, first_beat, n_beats)
    cells = piece.cells
    rows = np.arange(*np.searchsorted(cells.beat, [first_beat, first_beat + n_beats]))
    pitches = np.unique(cells.pitch[rows])
    left, right, gap, beat_in = 0.6, 0.75, 0.5, max(2.7, 10.8 / n_beats)
    inner = beat_in * n_beats
    lines = [_lay_out(tokens, beat_in - 0.12) for tokens in beats]
    token_rows = max(max(placed[-1].line for placed in lines) + 1, 2)
    heights = [1.75, 0.29 * max(pitches.size, 1), 0.44 * max(pitches.size, 1), _LINE_IN * token_rows + 0.1]
    height = 0.4 + sum(heights) + gap * 4 + 0.05
    drawn = figure(left + inner + right, height)
    drawn.set_layout_engine("none")
    drawn.text(left / (left + inner + right), 1 - 0.12 / height, title, size=13, va="top")
    panels, above = [], height - 0.4
    for size_in in heights:
        above -= gap + size_in
        panels.append(_axes_in(drawn, (left, above, inner, size_in)))
    roll, grid, codes, text = panels
    _draw_notes(drawn, roll, piece, first_beat, n_beats)
    struck = int(np.bitwise_count(cells.onset[rows]).sum())
    _name(roll, f"Notes in seconds: {struck} struck")
    grid_strips = _Strips(min_frame=0.0, notch=0.06 / beat_in)
    for row in rows:
        at = (float(cells.beat[row] - first_beat), float(np.searchsorted(pitches, cells.pitch[row])))
        grid_strips.add(
            int(cells.sustain[row]),
            int(cells.onset[row]),
            FRAMES,
            (at[0], at[1] + 0.06, 1.0, 0.88),
            "#5c7f9e",
        )
    for panel in (grid, codes):
        _lay_pitch_rows(panel, pitches, n_beats)
    _frame_lines(grid, grid_strips.boxes)
    grid_strips.draw(grid)
    _name(
        grid,
        f"Cells: {rows.size} pairs of beat and pitch, {FRAMES} frames a beat; black: struck, pale: held over",
    )
    used = _draw_codes(codes, beats, pitches, beat_in)
    _name(codes, f"Codes: {used}, each with the frames it stands for")
    text.set(xlim=(0, n_beats), ylim=(_LINE_IN * token_rows + 0.1, 0))
    _draw_tokens(text, lines, beat_in)
    order = "tempo, then for every pitch its codes" + ("" if tokenizer.codec is None else " and its velocity")
    _name(text, f"Tokens: {sum(map(len, beats))}, read line by line, beat by beat: {order}")
    for beat in range(n_beats + 1):  # from the beats in seconds to the beats of equal width
        top = (piece.beats_sec[first_beat + beat], roll.get_ylim()[0])
        drawn.add_artist(
            ConnectionPatch(
                top,
                (beat, grid.get_ylim()[1]),
                roll.transData,
                grid.transData,
                color=_LINE,
                linewidth=0.8,
                zorder=-1,
            )
        )
    drawn.savefig(path, dpi=_DPI)


# How a pattern is drawn


@dataclass
class _Strips:
    """Patterns placed on axes whose vertical axis points down, gathered so that they are drawn together.

    Attributes:
        min_frame: Least width of a struck frame, in units of the axes.
        notch: Depth of the notch that marks a held-over beginning, likewise.
    """

    min_frame: float
    notch: float
    bars: list[Corners] = field(default_factory=list)
    fills: list[tuple[float, float, float]] = field(default_factory=list)
    edges: list[tuple[float, float, float, float]] = field(default_factory=list)
    strikes: list[Corners] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def add(
        self, sustain: int, onset: int, frames: int, box: tuple[float, float, float, float], colour: str
    ) -> None:
        """Places a pattern of so many frames into a box (left, top, width, height)."""
        x, y, width, height = box
        step = width / frames
        high, low = y + 0.2 * height, y + 0.8 * height
        self.boxes.append(box)
        for start, end, struck in _runs(sustain, onset, frames):
            a, b = x + start * step, x + end * step
            corners = [(a, high), (b, high), (b, low), (a, low)]
            if not struck:
                corners.append((a + min(self.notch, 0.35 * (b - a)), y + 0.5 * height))
            self.bars.append(corners)
            self.fills.append(to_rgb(colour) if struck else _paler(colour, 0.65))
            self.edges.append((*to_rgb(colour), 0.0 if struck else 1.0))
            if struck:
                mark = a + max(step, self.min_frame)
                self.strikes.append([(a, y), (mark, y), (mark, y + height), (a, y + height)])

    def draw(self, axes: Axes) -> None:
        """Draws what was placed."""
        axes.add_collection(
            PolyCollection(self.bars, facecolors=self.fills, edgecolors=self.edges, linewidths=0.5, zorder=3)
        )
        axes.add_collection(
            PolyCollection(self.strikes, facecolors=_STRUCK, edgecolors="white", linewidths=0.3, zorder=4)
        )


def _runs(sustain: int, onset: int, frames: int) -> list[tuple[int, int, bool]]:
    """Runs of sounding frames as (first, end, struck); a strike begins a new one."""
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


def _draw_ground(axes: Axes, boxes: list[tuple[float, float, float, float]], parts: int) -> None:
    """The light boxes that patterns lie in, with lines that cut each into so many parts."""
    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in boxes]
    axes.add_collection(PolyCollection(corners, facecolors=_GROUND, edgecolors=_LINE, linewidths=0.5))
    for middle in (False, True):
        at = [part for part in range(1, parts) if (2 * part == parts) == middle]
        lines = [[(x + w * p / parts, y), (x + w * p / parts, y + h)] for x, y, w, h in boxes for p in at]
        axes.add_collection(
            LineCollection(lines, colors="#9a9a9a" if middle else _LINE, linewidths=0.9 if middle else 0.5)
        )


# The atlas


def _most_used(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the used codes of a level, most used first, at most `ATLAS_CODES`."""
    order = np.argsort(-count, kind="stable")[:ATLAS_CODES]
    return order[count[order] > 0]


def _draw_level(
    axes: Axes, codebook: Codebook, depth: int, codes: NDArray[np.int64], count: NDArray[np.int64]
) -> None:
    frames, patterns = LEVEL_FRAMES[depth], codebook.all_levels[depth]
    strips = _Strips(min_frame=0.02, notch=0.05)
    for place, code in enumerate(codes.tolist()):
        row, column = divmod(place, _COLUMNS)
        sustain, onset = int(patterns.sustain[code]), int(patterns.onset[code])
        strips.add(
            sustain, onset, frames, (column + 0.03, row + 0.04, 0.94, 0.46), LEVEL_COLOURS[CODE_KINDS[depth]]
        )
        if not sustain:
            axes.text(column + 0.5, row + 0.27, "silence", size=7, ha="center", va="center", color=_GREY)
        axes.text(column + 0.03, row + 0.56, str(code), size=7.5, va="top")
        share = _percent(count[code] / count.sum())
        axes.text(column + 0.97, row + 0.56, share, size=7.5, va="top", ha="right", color=_GREY)
    if not codes.size:
        axes.text(0.03, 0.5, "none used in the cells counted", size=9, va="center", color=_GREY)
    _draw_ground(axes, strips.boxes, 8 if frames == FRAMES else 4 if frames == FRAMES // 2 else 2)
    strips.draw(axes)


def _draw_key(axes: Axes, width_in: float) -> None:
    """What the marks mean, in one line."""
    axes.set(xlim=(0, width_in), ylim=(1, 0))
    entries = (("struck, then sounding", 0.0, 0xFFF000, 1 << 12), ("held over from before", 2.5, 0xFFF, 0))
    strips = _Strips(min_frame=0.02, notch=0.05)
    for label, left, sustain, onset in entries:
        strips.add(sustain, onset, 24, (left, 0.12, 0.7, 0.76), "#5c7f9e")
        axes.text(left + 0.78, 0.5, label, size=9, va="center")
    axes.text(width_in, 0.5, "code · share of its level", size=9, va="center", ha="right")
    _draw_ground(axes, strips.boxes, 4)
    strips.draw(axes)


# The bar


@dataclass(frozen=True)
class _Token:
    """One token: what it says in short, its colour, and what it is about.

    Attributes:
        kind: Its kind.
        label: In short.
        pitch: Of its cell, −1 for a tempo and a bar.
        eighth: For a code, where it begins in the beat.
        sustain: For a code, its pattern.
        onset: Likewise.
        opens: Whether it begins the slot of a pitch that sounds on from the beat before.
    """

    kind: Kind
    label: str
    pitch: int = -1
    eighth: int = 0
    sustain: int = 0
    onset: int = 0
    opens: bool = False


@dataclass(frozen=True)
class _Placed:
    """A token on its line of a beat's column, `left` and `width` in inches."""

    token: _Token
    line: int
    left: float
    width: float


def _beats_of_tokens(
    tokenizer: PianoTokenizer, ids: NDArray[np.int64], first_beat: int, n_beats: int
) -> list[list[_Token]]:
    """The tokens of some beats, each beat beginning with its tempo."""
    vocabulary, patterns, grammar = tokenizer.vocabulary, tokenizer.codebook.id_patterns, tokenizer.grammar
    tempo_at = np.flatnonzero(vocabulary.kind_of[ids] == Kind.TEMPO)
    ends = np.append(tempo_at, ids.size - 1)[first_beat : first_beat + n_beats + 1]
    beats: list[list[_Token]] = []
    state, pitch, eighth = grammar.start(), 0, 0
    for at, token in enumerate(ids[: ends[-1]].tolist()):
        before, state = state, grammar.after(state, token)
        if at < ends[0]:
            continue
        kind = Kind(vocabulary.kind_of[token])
        number = token - vocabulary.offset(kind)
        if kind is Kind.TEMPO:
            beats.append([_Token(kind, f"{tokenizer.tempo.bpm[number]:.0f} BPM")])
        elif kind is Kind.BAR:
            beats[-1].append(_Token(kind, vocabulary.describe(token)))
        elif kind is Kind.AGE:
            beats[-1].append(_Token(kind, vocabulary.describe(token), grammar.pitch(before), opens=True))
        elif kind is Kind.PITCH:
            pitch, eighth = number, 0
            beats[-1].append(_Token(kind, _pitch_name(pitch), pitch))
        elif kind is Kind.VELOCITY:
            beats[-1].append(_Token(kind, f"vel {number}", pitch))
        else:
            masks, label = (
                (int(patterns.sustain[token]), int(patterns.onset[token])),
                vocabulary.describe(token),
            )
            opens = before.phase in BETWEEN_CELLS  # codes of a pitch that they do not name
            if opens:
                pitch, eighth = grammar.pitch(before), 0
                label = f"({_pitch_name(pitch)}) {label}"
            beats[-1].append(_Token(kind, label, pitch, eighth, *masks, opens))
            eighth += EIGHTHS_OF_KIND[kind]
    return beats


def _lay_out(tokens: list[_Token], width_in: float) -> list[_Placed]:
    """Sets the tokens of a beat: the tempo and every cell begin a line, long lines are broken and indented."""
    placed: list[_Placed] = []
    line, left, indent, slot = -1, 0.0, 0.5, False
    for token in tokens:
        chip = len(token.label) * _CHAR_IN + 0.09
        if token.opens or (token.kind in (Kind.TEMPO, Kind.PITCH) and not slot):
            line, left = line + 1, 0.0
        elif left + chip > width_in:
            line, left = line + 1, indent
        placed.append(_Placed(token, line, left, chip))
        slot = token.kind is Kind.AGE  # whose pitch follows on the same line
        left = max(left + chip + 0.05, indent)
    return placed


def _draw_notes(drawn: Figure, axes: Axes, piece: Piece, first_beat: int, n_beats: int) -> None:
    """The notes that sound in these beats, with a colour bar to the right of the axes."""
    times = piece.beats_sec[first_beat : first_beat + n_beats + 1]
    notes = piece.notes[(piece.notes["onset_sec"] < times[-1]) & (piece.notes["offset_sec"] > times[0])]
    start, stop = np.maximum(notes["onset_sec"], times[0]), np.minimum(notes["offset_sec"], times[-1])
    pitch = notes["pitch"].astype(float)
    low, high = (pitch.min() - 2, pitch.max() + 2) if notes.size else (58.0, 74.0)
    axes.set(xlim=(times[0], times[-1]), ylim=(low, high))
    axes.vlines(times, low, high, color=_LINE, linewidth=0.8, zorder=0)
    half = max(0.45, 0.016 * (high - low))  # a wide range leaves a semitone too thin to see its colour
    scale = ScalarMappable(Normalize(20, 110), colormaps["viridis"])
    corners = [
        [(a, p - half), (b, p - half), (b, p + half), (a, p + half)]
        for a, b, p in zip(start.tolist(), stop.tolist(), pitch.tolist(), strict=True)
    ]
    axes.add_collection(
        PolyCollection(
            corners,
            facecolors=scale.to_rgba(notes["velocity"].astype(float)),
            edgecolors="white",
            linewidths=0.4,
        )
    )
    octaves = [p for p in range(0, 128, 12) if low <= p <= high]
    ticks = octaves if len(octaves) > 1 else sorted({*octaves, *np.rint([low + 2, high - 2]).astype(int)})
    axes.set_yticks(ticks, [_pitch_name(p) for p in ticks], size=8)
    axes.set_xticks(times, [f"{time:.2f} s" for time in times], size=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    _show_frame(axes)
    box, width_in = axes.get_position(), drawn.get_figwidth()
    colours = drawn.add_axes((box.x1 + 0.12 / width_in, box.y0, 0.1 / width_in, box.height))
    drawn.colorbar(scale, cax=colours)
    colours.set_ylabel("velocity", size=8)
    colours.tick_params(labelsize=8, length=2)


def _lay_pitch_rows(axes: Axes, pitches: NDArray[np.uint8], n_beats: int) -> None:
    """A row a pitch that occurs, the highest on top, and a line a beat."""
    rows = max(pitches.size, 1)
    axes.set(xlim=(0, n_beats), ylim=(0, rows))
    axes.hlines(np.arange(1, rows), 0, n_beats, color="0.9", linewidth=0.5, zorder=0)
    axes.vlines(np.arange(n_beats + 1), 0, rows, color=_LINE, linewidth=0.8, zorder=0)
    axes.set_yticks(np.arange(pitches.size) + 0.5, [_pitch_name(p) for p in pitches.tolist()], size=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    _show_frame(axes)
    if not pitches.size:
        axes.text(n_beats / 2, 0.5, "no notes in these beats", size=9, ha="center", va="center", color=_GREY)


def _frame_lines(axes: Axes, boxes: list[tuple[float, float, float, float]]) -> None:
    """The 48 frames of every active cell, its eighths a little stronger."""
    _draw_ground(axes, boxes, 8)
    lines = [
        [(x + w * f / FRAMES, y), (x + w * f / FRAMES, y + h)] for x, y, w, h in boxes for f in range(FRAMES)
    ]
    axes.add_collection(LineCollection(lines, colors="0.86", linewidths=0.3))


def _draw_codes(axes: Axes, beats: list[list[_Token]], pitches: NDArray[np.uint8], beat_in: float) -> int:
    """The cells cut into the parts that their codes stand for, named; returns how many."""
    codes = [(beat, t) for beat, tokens in enumerate(beats) for t in tokens if t.kind in CODE_KINDS]
    strips = _Strips(min_frame=0.0, notch=0.05 / beat_in)
    corners: list[Corners] = []
    inset = 0.02 / beat_in
    for beat, token in codes:
        row, eighths = float(np.searchsorted(pitches, token.pitch)), EIGHTHS_OF_KIND[token.kind]
        x, width = beat + token.eighth / 8 + inset, eighths / 8 - 2 * inset
        corners.append([(x, row + 0.04), (x + width, row + 0.04), (x + width, row + 0.96), (x, row + 0.96)])
        strips.add(
            token.sustain, token.onset, 6 * eighths, (x, row + 0.1, width, 0.36), LEVEL_COLOURS[token.kind]
        )
        axes.text(
            x + width / 2,
            row + 0.7,
            token.label,
            size=8 if eighths > 1 else 6,
            ha="center",
            va="center",
            zorder=5,
            color=_darker(LEVEL_COLOURS[token.kind]),
        )
    colours = [LEVEL_COLOURS[token.kind] for _, token in codes]
    axes.add_collection(
        PolyCollection(
            corners,
            facecolors=[_paler(c, 0.84) for c in colours],
            edgecolors=colours,
            linewidths=0.8,
            zorder=2,
        )
    )
    strips.draw(axes)
    return len(codes)


def _draw_tokens(axes: Axes, lines: list[list[_Placed]], beat_in: float) -> None:
    """The tokens as coloured chips in a column a beat."""
    axes.set_axis_off()
    colours = {Kind.TEMPO: "#8c8c8c", Kind.PITCH: "#3b3b3b", Kind.VELOCITY: "#7a5195", **LEVEL_COLOURS}
    colours[Kind.BAR] = colours[Kind.AGE] = colours[Kind.TEMPO]
    for beat, placed in enumerate(lines):
        for one in placed:
            left = beat + (one.left + 0.06) / beat_in
            top = 0.08 + one.line * _LINE_IN
            colour = colours[one.token.kind]
            axes.add_patch(
                FancyBboxPatch(
                    (left, top),
                    one.width / beat_in,
                    _LINE_IN - 0.04,
                    boxstyle="square,pad=0",
                    facecolor=_paler(colour, 0.84),
                    edgecolor=colour,
                    linewidth=0.6,
                )
            )
            axes.text(
                left + one.width / beat_in / 2,
                top + (_LINE_IN - 0.04) / 2,
                one.token.label,
                size=_CHIP_POINTS,
                family="DejaVu Sans Mono",
                ha="center",
                va="center_baseline",
                color=_darker(colour),
            )


# Small things


def _axes_in(drawn: Figure, box_in: tuple[float, float, float, float]) -> Axes:
    """Axes without frame and ticks at (left, bottom, width, height) in inches."""
    width, height = drawn.get_size_inches()
    left, bottom, wide, high = box_in
    axes = drawn.add_axes((left / width, bottom / height, wide / width, high / height))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _show_frame(axes: Axes) -> None:
    axes.spines[:].set(visible=True, color=_LINE)


def _name(axes: Axes, name: str) -> None:
    """A heading above a panel."""
    axes.set_title(name, loc="left", size=10, bbox={"color": "white", "pad": 1})


def _pitch_name(pitch: int) -> str:
    """`C4` for MIDI pitch 60."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def _percent(share: float) -> str:
    """Of a share between 0 and 1."""
    percent = 100 * float(share)
    return (
        f"{percent:.1f} %" if percent >= 1 else f"{percent:.2f} %" if percent >= 0.1 else f"{percent:.2g} %"
    )


def _paler(colour: str, amount: float) -> tuple[float, float, float]:
    red, green, blue = (part + (1 - part) * amount for part in to_rgb(colour))
    return red, green, blue


def _darker(colour: str) -> tuple[float, float, float]:
    red, green, blue = (part * 0.62 for part in to_rgb(colour))
    return red, green, blue
