"""Draws the curves of training runs, one picture for each trained stage.

Shapes: n rows in which a column has a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from pianolm.report.piano_roll import figure
from pianolm.report.training_log import Curves, Series, unigram_bits_per_note
from pianolm.tokenizer.vocabulary import KIND_GROUPS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6d31", "#5b5b5b")
"""Colours of runs, or of the lines in a panel of one run; distinguishable with colour blindness."""

_SELECTION_METRICS = ("val/loss", "val/velocity_mae")
_GREY, _PALE = "#6b6b6b", 0.38
_DPI, _PANEL_IN = 110, (4.4, 2.9)
_SMOOTH_FROM = 150  # rows from which on a running mean is drawn
_LOG_FROM = 30.0  # ratio of largest to smallest value from which on the scale is logarithmic


@dataclass(frozen=True)
class Line:
    """A curve of a panel: its name, and its columns of training and validation (empty for none)."""

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

    def by_line(self) -> Iterator[Panel]:
        """A panel for each line, so that colours can distinguish runs."""
        for line in self.lines:
            title = f"{self.title}: {line.name}" if line.name else self.title
            unit = self.unit or line.name
            yield Panel(title, unit, (line,), self.from_zero, self.may_be_log)


_BY_KIND = tuple(Line(kind, f"train/loss_{kind}", f"val/loss_{kind}") for kind in KIND_GROUPS)
_BY_SEGMENTS = (
    Line("all cells", val="val/velocity_mae"),
    *(Line(f"{n} segment{'s' * (n > 1)}", val=f"val/velocity_mae_{n}") for n in (1, 2, 3)),
    Line("4 and more", val="val/velocity_mae_4plus"),
)
PANELS = (
    Panel("loss", "nats per token", (Line(train="train/loss", val="val/loss"),)),
    Panel("loss by kind", "nats per token", _BY_KIND),
    Panel("bits per note", "bits", (Line(train="train/bits_per_note", val="val/bits_per_note"),)),
    Panel("mean error of velocities", "MIDI velocities", _BY_SEGMENTS),
    Panel("codes in use", "share of the codebook", (Line(val="val/codes_used"),), from_zero=True),
    Panel("perplexity of the codes", "codes", (Line(val="val/code_perplexity"),), from_zero=True),
    Panel("learning rate", "", (Line(train="learning_rate"),), from_zero=True),
    Panel("norm of the gradient", "before clipping", (Line(train="gradient_norm"),), may_be_log=True),
    Panel("speed", "tokens/s", (Line(train="train/tokens_per_second"),), from_zero=True),
    Panel("speed", "cells/s", (Line(train="train/cells_per_second"),), from_zero=True),
)
"""Panels of a picture; a panel is left out if none of its columns was logged."""


def save_curves(runs: Mapping[str, Curves], path: str | Path, title: str) -> None:
    """Draws the curves of one run, or compares several, each in one colour.

    Args:
        runs: Curves by name in the legend.
        path: PNG to write.
        title: Title of the picture, usually the stage.
    """
    several = len(runs) > 1
    panels = [
        part
        for panel in PANELS
        for part in (panel.by_line() if several else [panel])
        if any(column in curves.columns for curves in runs.values() for column in _columns(part))
    ]
    columns = 3 if len(panels) in (1, 2, 3, 5, 6, 9) else 4
    rows = max(-(-len(panels) // columns), 1)
    legend_in = 0.25 * (len(runs) + 1) if several else 0.0
    width, height = _PANEL_IN[0] * columns, _PANEL_IN[1] * rows + 0.5 + legend_in
    picture = figure(width, height)
    grid = picture.subplots(rows, columns, squeeze=False)
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
    heading = title if several else f"{title}   {_summary(next(iter(runs.values())))}"
    picture.suptitle(heading, x=0.01, ha="left", size=12)
    if several:
        _legend_of_runs(picture, runs, any(p.lines[0].train and p.lines[0].val for p in panels))
    picture.savefig(path, dpi=_DPI)


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
    _style_axes(axes, panel)
    if alone:
        _legend_of_lines(axes, panel, next(iter(runs.values())))
    axes.set_title(panel.title, size=10, loc="left")
    # Only language models log val/loss, in nats; the velocity codec's loss is an error of velocities.
    losses_in_nats = any("val/loss" in curves.columns for curves in runs.values())
    axes.set_ylabel(panel.unit if losses_in_nats or panel.title != "loss" else "", size=9)


def _draw_training(axes: Axes, series: Series, colour: str, pale: bool) -> None:
    """Draws a thin line; for many rows a running mean, with the rows behind it."""
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


def _draw_unigram(axes: Axes, title: str, curves: Curves, drawn_levels: list[float]) -> None:
    """Draws the loss of a model that knows only the frequencies of tokens, once for runs with the same one."""
    level = curves.last("val/unigram_entropy") if title == "loss" else unigram_bits_per_note(curves)
    if level is None or any(abs(level - other) < 1e-6 for other in drawn_levels):
        return
    drawn_levels.append(level)
    axes.axhline(level, color=_GREY, lw=1, ls="--", zorder=1)
    axes.annotate(
        f"token frequencies alone {_short(level)}",
        (1, level),
        (-4, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        size=8,
        color=_GREY,
        zorder=4,
    )


def _style_axes(axes: Axes, panel: Panel) -> None:
    axes.grid(color="0.93", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    solid = [np.asarray(line.get_ydata(), float) for line in axes.get_lines() if line.get_linestyle() == "-"]
    values = np.concatenate(solid) if solid else np.zeros(0)
    values = values[np.isfinite(values)]
    if panel.may_be_log and values.size and values.min() > 0 and values.max() > _LOG_FROM * values.min():
        axes.set_yscale("log")
    elif panel.from_zero and values.size and values.max() > 0:
        axes.set_ylim(0, 1.08 * values.max())
        form = ",.0f" if values.max() >= 100 else ".3g"
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format(value, form)))


def _legend_of_lines(axes: Axes, panel: Panel, curves: Curves) -> None:
    """Names with the least validation value for a single loss, else with the last value."""
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
    """A second axis with tokens seen, if all runs had seen about the same number at each step."""
    series = [curves.columns.get("tokens_seen") for curves in runs]
    tokens_per_step = [s[1][-1] / s[0][-1] for s in series if s is not None]
    if len(tokens_per_step) < len(runs) or max(tokens_per_step) > 1.02 * min(tokens_per_step):
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
    """Steps, tokens, padding, memory, resumption and non-finite metrics of a run in one line."""
    steps = max((int(step_n[-1]) for step_n, _ in curves.columns.values()), default=0)
    words = [f"{steps:,} steps"]
    if tokens := curves.last("tokens_seen"):
        words.append(f"{tokens:,.0f} tokens")
    if (padding := curves.last("train/padding_fraction")) is not None:
        words.append(f"{100 * padding:.1f} % padding")
    if memory := curves.last("memory_mb"):
        words.append(f"at most {memory:,.0f} MB")
    bad = [name for name, (_, value_n) in curves.columns.items() if not np.isfinite(value_n).all()]
    if curves.resumed_at:
        words.append("dotted: resumed")
    if bad:
        words.append(f"not finite: {', '.join(bad)}")
    return " · ".join(words)


def _legend_of_runs(picture: Figure, runs: Mapping[str, Curves], two_kinds: bool) -> None:
    handles = []
    for number, (name, curves) in enumerate(runs.items()):
        selection = [column for column in _SELECTION_METRICS if column in curves.columns]
        least = [f"least {column} {_short(np.nanmin(curves.columns[column][1]))}" for column in selection]
        colour = COLOURS[number % len(COLOURS)]
        handles.append(Line2D([], [], color=colour, lw=2, label="   ".join([name, *least])))
    if two_kinds:
        handles.append(
            Line2D([], [], color=_GREY, lw=1.1, alpha=_PALE, label="pale: training; full: validation")
        )
    picture.legend(handles=handles, loc="outside lower left", fontsize=9, frameon=False)
