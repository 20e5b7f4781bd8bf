"""Draws a sweep: the validation metric against each swept option, and the best runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from pianolm.report.curves import COLOURS
from pianolm.report.piano_roll import figure
from pianolm.report.sweep_results import JobResult, ranked, swept_options

MOST_BEST = 8
"""Best runs that are listed, and whose curves are compared."""
_DPI, _PANEL_IN = 110, (4.4, 3.3)
_LOG_FROM = 5.0  # ratio of largest to smallest value of an option from which on its axis is logarithmic
_GREY, _BEST = "#6b6b6b", "black"


def save_sweep(results: Sequence[JobResult], path: str | Path, title: str) -> bool:
    """Draws the jobs of a sweep that have a validation metric.

    Args:
        results: Results of all jobs.
        path: PNG to write.
        title: Title of the picture, usually the sweep's name.

    Returns:
        Whether there was such a job; else nothing is written.
    """
    best = ranked(results)
    if not best:
        return False
    options = {key: values for key, values in swept_options(results).items() if len(set(values)) > 1}
    places = [place for place, one in enumerate(results) if one.value is not None]
    value_n = np.array([results[place].value for place in places], float)
    valued = {key: [values[place] for place in places] for key, values in options.items()}
    panels = len(valued) + 1
    columns = 2 if panels == 4 else min(panels, 3)
    rows = -(-panels // columns)
    picture = figure(_PANEL_IN[0] * columns, _PANEL_IN[1] * rows + 0.4)
    axes = list(picture.subplots(rows, columns, squeeze=False).flat)
    for panel, key in zip(axes, valued, strict=False):
        _draw_option(panel, key, valued, value_n)
        panel.set_ylabel(best[0].metric, size=9)
    _draw_best(axes[len(valued)], best[:MOST_BEST], list(results), options)
    for panel in axes[panels:]:
        panel.set_visible(False)
    failed = sum(one.state == "failed" for one in results)
    words = [title, f"{len(results)} jobs", *([f"{failed} failed"] if failed else [])]
    picture.suptitle(" · ".join(words), x=0.01, ha="left", size=12)
    picture.savefig(path, dpi=_DPI)
    return True


def _draw_option(axes: Axes, key: str, options: dict[str, list[str]], value_n: np.ndarray) -> None:
    """Draws the metric against an option; jobs that agree in all other options are joined by a line."""
    at_n = _positions(axes, options[key])
    others = list(zip(*(values for name, values in options.items() if name != key), strict=True))
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in np.argsort(at_n, kind="stable"):
        groups.setdefault(others[place] if others else (), []).append(int(place))
    if len(groups) <= len(COLOURS) and any(len(members) > 1 for members in groups.values()):
        for colour, (group, members) in zip(
            COLOURS, sorted(groups.items(), key=lambda item: _order(item[0], list(others))), strict=False
        ):
            label = " ".join(f"{name}={v}" for name, v in zip(_without(options, key), group, strict=True))
            axes.plot(at_n[members], value_n[members], "o-", color=colour, ms=4, lw=1.3, label=label or None)
        if len(groups) > 1:
            axes.legend(fontsize=7, frameon=False)
    else:
        axes.plot(at_n, value_n, "o", color=_GREY, ms=4, alpha=0.7)
    least = int(np.argmin(value_n))
    axes.plot(at_n[least], value_n[least], "o", mfc="none", mec=_BEST, ms=11, mew=1.5)
    axes.set_title(key, size=10, loc="left")
    axes.grid(color="0.93", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _without(options: dict[str, list[str]], key: str) -> list[str]:
    return [name for name in options if name != key]


def _order(group: tuple[str, ...], groups: list[tuple[str, ...]]) -> list[float]:
    """Orders groups by their values: numbers by size, words as they were typed."""
    columns = [list(dict.fromkeys(words)) for words in zip(*groups, strict=True)]
    return [
        float(word) if _numbers(words) else float(words.index(word))
        for word, words in zip(group, columns, strict=True)
    ]


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def _positions(axes: Axes, values: Sequence[str]) -> np.ndarray:
    """Where the values of an option lie on its axis: numbers at scale, words side by side."""
    numbers = _numbers(values)
    words = list(dict.fromkeys(values))
    if numbers is None:
        axes.set_xticks(range(len(words)), [word or "not set" for word in words])
        axes.set_xlim(-0.5, len(words) - 0.5)
        return np.array([words.index(value) for value in values], float)
    if min(numbers) > 0 and max(numbers) >= _LOG_FROM * min(numbers):
        axes.set_xscale("log")
    if len(words) <= 6:  # a grid: the ticks are its values, as they were typed
        axes.set_xticks([float(word) for word in words], words)
        axes.xaxis.set_minor_locator(NullLocator())
    return np.array(numbers)


def _draw_best(
    axes: Axes, best: Sequence[JobResult], results: list[JobResult], options: dict[str, list[str]]
) -> None:
    """Draws the metric of the best runs, with the values that distinguish them."""
    for rank, one in enumerate(best):
        place = results.index(one)
        words = [
            f"{key.rpartition('.')[2]}={_short(values[place])}"
            for key, values in options.items()
            if values[place]
        ]
        value = one.value
        assert value is not None, "ranked"
        axes.plot(value, rank, "o", color=_BEST if rank == 0 else _GREY, ms=5)
        text = f"{value:.5g}   job {one.job}  {' '.join(words)}"
        axes.text(0.01, rank - 0.3, text, transform=axes.get_yaxis_transform(), size=8, va="center")
    axes.set_ylim(len(best) - 0.6, -0.6)
    axes.set_yticks(range(len(best)), [str(rank + 1) for rank in range(len(best))])
    axes.set_xlabel(best[0].metric, size=9)
    axes.set_title("best runs", size=10, loc="left")
    axes.grid(color="0.93", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _short(word: str) -> str:
    """A value that Optuna has chosen with four digits; shorter ones as they were typed."""
    numbers = _numbers([word])
    return f"{numbers[0]:.4g}" if numbers and len(word) > 7 else word
