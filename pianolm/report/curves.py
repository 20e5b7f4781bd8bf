"""Curves of training runs, drawn from the CSV files that training leaves: one picture a trained stage.

A run directory holds `<stage>/csv/metrics.csv`; where training was broken off and went on, `csv_2`, `csv_3` … hold what
came after.

Shapes: n rows in which a column has a value.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from pianolm.report.piano_roll import figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6d31", "#5b5b5b")
"""Of runs, and of the lines in a panel of one run: they remain distinct with colour-blind eyes."""

Series = tuple[NDArray[np.int64], NDArray[np.float64]]
"""[n] optimizer steps done, [n] values."""

_CHOOSES_WEIGHTS = ("val/loss", "val/velocity_mae")
_GREY, _PALE = "#6b6b6b", 0.38
_DPI, _PANEL_IN = 110, (4.4, 2.9)
_SMOOTH_FROM = 150  # rows; fewer are drawn as they are
_LOG_FROM = 30.0  # largest over smallest value from which on a logarithmic scale shows more
_LN2 = math.log(2)


@dataclass
class Curves:
    """What a run logged of one stage.

    Attributes:
        columns: Values by name, in order of steps; what is not finite is NaN.
        resumed_at: Steps at which training went on after a break.
    """

    columns: dict[str, Series] = field(default_factory=dict)
    resumed_at: list[int] = field(default_factory=list)

    def last(self, name: str) -> float | None:
        """The last value of a column, None without one."""
        return float(self.columns[name][1][-1]) if name in self.columns else None


@dataclass(frozen=True)
class Line:
    """A curve of a panel: its name there, and its columns in training and in validation where there are some."""

    name: str = ""
    train: str = ""
    val: str = ""


@dataclass(frozen=True)
class Panel:
    """Curves that share axes."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    from_zero: bool = False
    may_be_log: bool = False

    def apart(self) -> Iterator[Panel]:
        """A panel for each of its lines, so that colours are free to tell runs apart."""
        for line in self.lines:
            title = f"{self.title}: {line.name}" if line.name else self.title
            unit = self.unit or line.name
            yield Panel(title, unit, (line,), self.from_zero, self.may_be_log)


_BY_KIND = tuple(
    Line(kind, f"train/loss_{kind}", f"val/loss_{kind}")
    for kind in ("tempo", "pitch", "pattern", "velocity", "bar")
)
_BY_SEGMENTS = (
    Line("all cells", val="val/velocity_mae"),
    *(Line(f"{n} segment{'s' * (n > 1)}", val=f"val/velocity_mae_{n}") for n in (1, 2, 3)),
    Line("4 and more", val="val/velocity_mae_4plus"),
)
PANELS = (
    Panel("loss", "nats a token", (Line(train="train/loss", val="val/loss"),)),
    Panel("loss by kind", "nats a token", _BY_KIND),
    Panel("bits per note", "bits", (Line(train="train/bits_per_note", val="val/bits_per_note"),)),
    Panel("mean error of velocities", "MIDI velocities", _BY_SEGMENTS),
    Panel("codes in use", "share of the codebook", (Line(val="val/codes_used"),), from_zero=True),
    Panel("perplexity of the codes", "codes", (Line(val="val/code_perplexity"),), from_zero=True),
    Panel("learning rate", "", (Line(train="learning_rate"),), from_zero=True),
    Panel("norm of the gradient", "before clipping", (Line(train="gradient_norm"),), may_be_log=True),
    Panel("speed", "tokens/s", (Line(train="train/tokens_per_second"),), from_zero=True),
    Panel("speed", "cells/s", (Line(train="train/cells_per_second"),), from_zero=True),
)
"""What a picture shows where a run has logged it; a panel without any column is left out."""


def find_runs(directory: Path) -> dict[Path, dict[str, list[Path]]]:
    """The runs at or below a directory that trained something.

    Returns:
        By run directory and stage the CSV files, in the order they were written.
    """
    runs: dict[Path, dict[str, list[Path]]] = {}
    for path in sorted(directory.rglob("csv*/metrics.csv"), key=lambda p: (p.parents[2], _part(p))):
        runs.setdefault(path.parents[2], {}).setdefault(path.parents[1].name, []).append(path)
    return runs


def _part(path: Path) -> int:
    """The number in `csv`, `csv_2`, `csv_3` …"""
    number = path.parent.name.removeprefix("csv").lstrip("_")
    return int(number) if number.isdecimal() else 1


def read_curves(parts: Sequence[Path]) -> Curves:
    """Joins CSV files of one training run: from the first step of a part on, the part before it does not count.

    Args:
        parts: Files in the order they were written. Rows without a step and fields that are no number, such as the
            end of a file that is being written, are passed over.
    """
    curves = Curves()
    for path in parts:
        columns = _read_columns(path)
        if not columns:
            continue
        first = min(int(step_n[0]) for step_n, _ in columns.values())
        if curves.columns:
            curves.resumed_at.append(first - 1)
        for name in curves.columns.keys() | columns.keys():
            old_step, old_value = curves.columns.get(name, (np.zeros(0, np.int64), np.zeros(0)))
            step, value = columns.get(name, (np.zeros(0, np.int64), np.zeros(0)))
            kept = old_step < first
            joined = np.concatenate([old_step[kept], step]), np.concatenate([old_value[kept], value])
            curves.columns[name] = joined
    curves.columns = {name: series for name, series in sorted(curves.columns.items()) if series[0].size}
    return curves


def _read_columns(path: Path) -> dict[str, Series]:
    found: dict[str, dict[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.pop("step", None))
            if step is None:
                continue
            for name, text in row.items():
                if (value := _number(text)) is not None:
                    # Rows are numbered from 0: row 9 was written when ten steps were done.
                    found.setdefault(name, {})[int(step) + 1] = value if math.isfinite(value) else math.nan
    return {
        name: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for name, values in found.items()
    }


def _number(text: object) -> float | None:
    try:
        return float(text) if isinstance(text, str) else None
    except ValueError:
        return None


def unigram_bits_per_note(curves: Curves) -> float | None:
    """Bits per note of a model that knows the frequencies of tokens alone.

    The unigram entropy is logged a token. Bits per note are proportional to the loss exactly where every target that is
    validated counts for them; only then is the answer known.
    """
    entropy = curves.last("val/unigram_entropy")
    loss, bits = curves.columns.get("val/loss"), curves.columns.get("val/bits_per_note")
    if entropy is None or loss is None or bits is None or not np.array_equal(loss[0], bits[0]):
        return None
    ratio_n = bits[1] / loss[1]
    same = np.ptp(ratio_n) <= 1e-4 * ratio_n.mean()
    return float(entropy * ratio_n.mean()) if same and ratio_n.size > 1 else None


def save_curves(runs: Mapping[str, Curves], path: str | Path, title: str) -> None:
    """Draws the curves of one run, or of several to compare, with a colour a run.

    Args:
        runs: By the names that the legend gives them.
        path: PNG to write.
        title: Above the picture, usually the stage.
    """
    several = len(runs) > 1
    panels = [
        part
        for panel in PANELS
        for part in (panel.apart() if several else [panel])
        if any(column in curves.columns for curves in runs.values() for column in _columns(part))
    ]
    columns = 3 if len(panels) in (1, 2, 3, 5, 6, 9) else 4
    rows = max(-(-len(panels) // columns), 1)
    legend_in = 0.25 * (len(runs) + 1) if several else 0.0
    width, height = _PANEL_IN[0] * columns, _PANEL_IN[1] * rows + 0.5 + legend_in
    drawn = figure(width, height)
    grid = drawn.subplots(rows, columns, squeeze=False)
    last_step = max((int(s[0][-1]) for c in runs.values() for s in c.columns.values()), default=1)
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.set_visible(False)
            continue
        _draw_panel(axes, panels[number], runs)
        axes.set_xlim(0, last_step)
        if number + columns >= len(panels):
            axes.set_xlabel("optimizer steps")
        if number < columns:
            _tokens_above(axes, list(runs.values()), last_step)
    head = title if several else f"{title}   {_summary(next(iter(runs.values())))}"
    drawn.suptitle(head, x=0.01, ha="left", size=12)
    if several:
        _legend_of_runs(drawn, runs, any(p.lines[0].train and p.lines[0].val for p in panels))
    drawn.savefig(path, dpi=_DPI)


def _columns(panel: Panel) -> Iterator[str]:
    for line in panel.lines:
        yield from (column for column in (line.train, line.val) if column)


def _draw_panel(axes: Axes, panel: Panel, runs: Mapping[str, Curves]) -> None:
    alone, levels = len(runs) == 1, []  # type: tuple[bool, list[float]]
    for number, curves in enumerate(runs.values()):
        for nth, line in enumerate(panel.lines):
            colour = COLOURS[(nth if alone else number) % len(COLOURS)]
            both = line.val in curves.columns
            if line.train in curves.columns:
                _draw_training(axes, curves.columns[line.train], colour, pale=both)
            if both:
                _draw_validation(axes, curves.columns[line.val], colour)
        for step in curves.resumed_at:
            axes.axvline(step, color=COLOURS[number % len(COLOURS)] if not alone else _GREY, lw=0.8, ls=":")
        if panel.title in ("loss", "bits per note"):
            _draw_unigram(axes, panel.title, curves, levels)
    _scale(axes, panel)
    if alone:
        _legend_of_lines(axes, panel, next(iter(runs.values())))
    axes.set_title(panel.title, size=10, loc="left")
    # The codec's loss is an error of velocities, not nats: only language models validate a loss.
    losses_in_nats = any("val/loss" in curves.columns for curves in runs.values())
    axes.set_ylabel(panel.unit if losses_in_nats or panel.title != "loss" else "", size=9)


def _draw_training(axes: Axes, series: Series, colour: str, pale: bool) -> None:
    """A thin line; of many rows a running mean, with the rows themselves behind it."""
    step_n, value_n = series
    alpha = _PALE if pale else 1.0
    marker = "." if step_n.size == 1 else ""
    if step_n.size < _SMOOTH_FROM:
        axes.plot(step_n, value_n, color=colour, lw=1.1, alpha=alpha, marker=marker)
        return
    axes.plot(step_n, value_n, color=colour, lw=0.5, alpha=0.4 * alpha)
    window = np.ones(max(step_n.size // 50, 3))
    mean_n = np.convolve(value_n, window / window.size, mode="valid")
    offset = window.size // 2
    axes.plot(step_n[offset : offset + mean_n.size], mean_n, color=colour, lw=1.1, alpha=max(alpha, 0.55))


def _draw_validation(axes: Axes, series: Series, colour: str) -> None:
    step_n, value_n = series
    marker = "o" if step_n.size <= 40 else ""
    axes.plot(step_n, value_n, color=colour, lw=1.6, marker=marker, ms=3.2, zorder=3)


def _draw_unigram(axes: Axes, title: str, curves: Curves, drawn: list[float]) -> None:
    """The level that the frequencies of tokens alone reach, once for all runs that share it."""
    level = curves.last("val/unigram_entropy") if title == "loss" else unigram_bits_per_note(curves)
    if level is None or any(abs(level - other) < 1e-6 for other in drawn):
        return
    drawn.append(level)
    axes.axhline(level, color=_GREY, lw=1, ls="--", zorder=1)
    axes.annotate(
        f"frequencies alone {_short(level)}",
        (1, level),
        (-4, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        size=8,
        color=_GREY,
        zorder=4,
    )


def _scale(axes: Axes, panel: Panel) -> None:
    axes.grid(color="0.93", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.get_lines() if line.get_linestyle() == "-"]
    values = np.concatenate(drawn) if drawn else np.zeros(0)
    values = values[np.isfinite(values)]
    if panel.may_be_log and values.size and values.min() > 0 and values.max() > _LOG_FROM * values.min():
        axes.set_yscale("log")
    elif panel.from_zero and values.size and values.max() > 0:
        axes.set_ylim(0, 1.08 * values.max())
        form = ",.0f" if values.max() >= 100 else ".3g"
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format(value, form)))


def _legend_of_lines(axes: Axes, panel: Panel, curves: Curves) -> None:
    """Names with the numbers that one looks for: of a loss alone its best validation, else the last one."""
    handles = []
    for nth, line in enumerate(panel.lines):
        colour = COLOURS[nth % len(COLOURS)]
        if line.val in curves.columns:
            step_n, value_n = curves.columns[line.val]
            text = f"{line.name}  {_short(value_n[-1])}"
            if len(panel.lines) == 1:
                text = f"validation, last {_short(value_n[-1])}"
                if not panel.from_zero and np.isfinite(value_n).any():
                    best = int(np.nanargmin(value_n))
                    text = f"validation, least {_short(value_n[best])} at step {step_n[best]:,}"
            handles.append(Line2D([], [], color=colour, lw=1.6, marker="o", ms=3.2, label=text))
        if line.train in curves.columns and len(panel.lines) == 1 and handles:
            handles.append(Line2D([], [], color=colour, lw=1.1, alpha=_PALE, label="training"))
    if handles:
        axes.legend(handles=handles, fontsize=8, frameon=False, handlelength=1.6, labelspacing=0.25)


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _tokens_above(axes: Axes, runs: list[Curves], last_step: int) -> None:
    """Tokens seen as a second axis, where all runs had seen about as many at a step."""
    series = [curves.columns.get("tokens_seen") for curves in runs]
    paces = [s[1][-1] / s[0][-1] for s in series if s is not None]
    if len(paces) < len(runs) or max(paces) > 1.02 * min(paces):
        return
    longest = max((s for s in series if s is not None), key=lambda s: int(s[0][-1]))
    step_n, seen_n = np.append(0, longest[0]), np.append(0.0, longest[1])
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, seen_n[-1] * last_step / step_n[-1])
    at = np.interp(ticks, seen_n, step_n)
    beyond = ticks > seen_n[-1]
    at[beyond] = ticks[beyond] / seen_n[-1] * step_n[-1]
    shown = at <= last_step
    above = axes.secondary_xaxis("top")
    short = EngFormatter(sep="")
    above.set_xticks(at[shown], [short(tick) for tick in ticks[shown]])
    above.tick_params(labelsize=8, colors=_GREY, length=2.5)
    above.spines["top"].set_color("0.8")
    above.set_xlabel("tokens seen", size=8, color=_GREY)


def _summary(curves: Curves) -> str:
    """The run in numbers: how long, how much, and what went wrong."""
    steps = max((int(step_n[-1]) for step_n, _ in curves.columns.values()), default=0)
    words = [f"{steps:,} steps"]
    if tokens := curves.last("tokens_seen"):
        words.append(f"{tokens:,.0f} tokens")
    if (padding := curves.last("train/padding_fraction")) is not None:
        words.append(f"{100 * padding:.1f} % padding")
    if memory := curves.last("memory_mb"):
        words.append(f"{memory:,.0f} MB at most")
    bad = [name for name, (_, value_n) in curves.columns.items() if not np.isfinite(value_n).all()]
    if curves.resumed_at:
        words.append("dotted: went on after a break")
    if bad:
        words.append(f"not finite: {', '.join(bad)}")
    return " · ".join(words)


def _legend_of_runs(drawn: Figure, runs: Mapping[str, Curves], two_kinds: bool) -> None:
    handles = []
    for number, (name, curves) in enumerate(runs.items()):
        chosen = [column for column in _CHOOSES_WEIGHTS if column in curves.columns]
        least = [f"least {column} {_short(np.nanmin(curves.columns[column][1]))}" for column in chosen]
        colour = COLOURS[number % len(COLOURS)]
        handles.append(Line2D([], [], color=colour, lw=2, label="   ".join([name, *least])))
    if two_kinds:
        handles.append(
            Line2D([], [], color=_GREY, lw=1.1, alpha=_PALE, label="pale: training; full: validation")
        )
    drawn.legend(handles=handles, loc="outside lower left", fontsize=9, frameon=False)
