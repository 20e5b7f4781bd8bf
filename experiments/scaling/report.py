"""Makes results.jsonl, metrics.json, the tables of README.md and curves.png from the rows of the points.

python report.py RUNS OUT    the folder of point.py's runs, and the folder of the results
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from curve import (
    MILLION,
    TOLD_FROM,
    Best,
    Curve,
    Point,
    Speed,
    best_size,
    counts,
    errors_of_left_out,
    fit,
    is_fittable,
    root_mean_square,
)
from matplotlib.axes import Axes
from point import POINTS, SIZES

from experiments.results import RESULTS, Row, bits_without_bars, publish, read_rows, table
from pianolm.report.piano_roll import figure

FEWEST = 6
"""Points that a curve is fitted to, at least: it has five figures."""
NOT_OF_THE_CURVE = ("0.3M",)
"""Sizes too narrow to start with induction heads, as the others do: what they lack is not size alone."""
CORES = 2
TIMES = {"hour": 3600, "day": 24 * 3600}
"""Seconds of the times that the best size is asked for."""
ARTICLES = {"hour": "an hour", "day": "a day"}
ROUNDING = 1.01
"""Factor beyond the trainings that is none: the last one sees whole steps of the music."""
COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52")
GAP = "–"


class Fitted(NamedTuple):
    """A curve and how well it tells points that it has not seen.

    Attributes:
        curve: The curve of all points.
        points: Those that it was fitted to.
        error: Root mean square of the errors at points left out, in bits a note.
        largest: The largest of them.
    """

    curve: Curve
    points: tuple[Point, ...]
    error: float
    largest: float


def collected(runs: Path, out: Path) -> list[Row]:
    """One row for each point that was measured, in the order of the plan; new rows replace old ones."""
    rows = {row["point"]: row for row in read_rows(out / RESULTS)}
    for point in POINTS:
        if (path := runs / point / "row.json").is_file():
            rows[point] = json.loads(path.read_text("utf-8"))
    return [rows[point] for point in POINTS if point in rows]


def of_curve(rows: list[Row]) -> list[Row]:
    """The rows that the curve is fitted to."""
    return [row for row in rows if row["size"] not in NOT_OF_THE_CURVE]


def fitted(rows: list[Row]) -> Fitted | None:
    """The curve of the rows, None where they are too few for one."""
    points = tuple(
        Point(row["parameters"], row["tokens_seen"], bits_without_bars(row)) for row in of_curve(rows)
    )
    return _fitted(points) if len(points) >= FEWEST and is_fittable(points) else None


@functools.cache
def _fitted(points: tuple[Point, ...]) -> Fitted:
    errors = errors_of_left_out(points)
    return Fitted(fit(points), points, root_mean_square(errors), max(map(abs, errors)))


def in_millions(count: float) -> str:
    """A number of parameters or tokens, with two digits."""
    return f"{two_digits(count / MILLION):g} M"


def in_minutes(seconds: float) -> str:
    """Minutes, with tenths below ten."""
    minutes = seconds / 60
    return f"{minutes:.1f}" if minutes < 9.95 else f"{minutes:.0f}"


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def of_size(rows: list[Row], size: str) -> list[Row]:
    """The rows of a size, those of few notes first."""
    return sorted((row for row in rows if row["size"] == size), key=lambda row: row["train_notes"])


def rate_of(trained: list[Row]) -> float:
    """Tokens a second over all trainings of a size."""
    return float(sum(row["tokens_seen"] for row in trained) / sum(row["train_seconds"] for row in trained))


def speed_of(rows: list[Row]) -> Speed:
    """Throughput of all sizes."""
    by_size = [trained for size in SIZES if (trained := of_size(rows, size))]
    parameters = [trained[0]["parameters"] for trained in by_size]
    return Speed(np.array(parameters, np.float64), np.array([rate_of(trained) for trained in by_size]))


def one_pass(rows: list[Row]) -> int:
    """Tokens of all the music there is."""
    return max(row["music_tokens"] for row in rows)


def best_of(rows: list[Row], curve: Curve) -> Iterator[tuple[str, bool, Best]]:
    """For each time, the best size if music heard again teaches as much as new music, and if it teaches nothing."""
    speed = speed_of(rows)
    for name, seconds in TIMES.items():
        yield name, True, best_size(curve, speed, CORES * seconds)
        yield name, False, best_size(curve, speed, CORES * seconds, one_pass(rows))


def headlines(rows: list[Row]) -> dict[str, float]:
    figures: dict[str, float] = {}
    if (found := fitted(rows)) is not None:
        for name, again, best in best_of(rows, found.curve):
            key = f"{name}/{'repeats_count' if again else 'repeats_do_not_count'}"
            figures[f"{key}/best_million_parameters"] = two_digits(best.parameters / MILLION)
            figures[f"{key}/bits_per_note"] = round(best.bits, 2)
        figures |= {f"curve/{name}": round(value, 2) for name, value in found.curve._asdict().items()}
        figures |= {"curve/left_out_error": round(found.error, 3), "curve/points": len(found.points)}
    figures |= {f"{row['point']}/bits_per_note": round(bits_without_bars(row), 3) for row in rows}
    return figures


def tables(rows: list[Row]) -> dict[str, list[str]]:
    found = fitted(rows)
    return {
        "results": grid(rows),
        "curve": [f"No curve yet: it takes {FEWEST} points of several sizes."]
        if found is None
        else [equation(found)],
        "best": [] if found is None else best_table(rows, found.curve),
    }


def grid(rows: list[Row]) -> list[str]:
    """Bits a note and minutes of the trainings, a line for each size, a column for each number of notes."""
    notes = sorted({row["train_notes"] for row in rows})
    head = ["parameters", "tokens a second", "peak GiB", *(f"{count:,} notes" for count in notes)]
    lines = []
    for size in SIZES:
        if trained := of_size(rows, size):
            cells = {
                row["train_notes"]: f"{bits_without_bars(row):.2f} ({in_minutes(row['train_seconds'])} min)"
                for row in trained
            }
            memory = max(row["peak_rss_mb"] for row in trained) / 1024
            parameters = f"{trained[0]['parameters'] / MILLION:.2f} M"
            lines.append(
                [parameters, f"{rate_of(trained):,.0f}", f"{memory:.1f}", *(cells.get(n, GAP) for n in notes)]
            )
    return table(head, lines)


def equation(found: Fitted) -> str:
    """The curve in figures, what was not fitted of it, and its error at points left out."""
    floor, size_factor, size_exponent, token_factor, token_exponent = found.curve
    sizes, amounts = counts(found.points)
    given = [
        f"the exponent of {what}"
        for what, count in (("size", sizes), ("tokens", amounts))
        if count < TOLD_FROM
    ]
    origin = f" ({' and '.join(given)} not fitted, but that of Hoffmann et al.)" if given else ""
    return (
        f"**bits a note = {floor:.2f} + {size_factor:.2f} · N^−{size_exponent:.2f} + {token_factor:.2f} · "
        f"D^−{token_exponent:.2f}**, with N million parameters and D million tokens, fitted to "
        f"the {len(found.points)} points of the sizes that start with induction heads{origin}. Each point left out in "
        "turn, the curve of the others misses it by "
        f"{found.error:.2f} bits (root mean square), {found.largest:.2f} at most."
    )


def best_table(rows: list[Row], curve: Curve) -> list[str]:
    """The best size for each time, and what of that lies beyond the measurements."""
    head = [
        "two cores for",
        "music heard again teaches",
        "best size",
        "tokens",
        "passes",
        "bits a note by the curve",
    ]
    lines = [
        [
            ARTICLES[name],
            "as new music does" if again else "nothing",
            in_millions(best.parameters) + (" or beyond" if best.at_edge else ""),
            in_millions(best.tokens),
            f"{best.tokens / one_pass(rows):.1f}",
            f"{best.bits:.2f}",
            beyond(rows, best) or GAP,
        ]
        for name, again, best in best_of(rows, curve)
    ]
    return table([*head, "extrapolated"], lines)


def beyond(rows: list[Row], best: Best) -> str:
    """In what a best size lies outside the trainings: its parameters, the tokens that count for it, or both."""
    outside = []
    for name, key, value in (("size", "parameters", best.parameters), ("music", "tokens_seen", best.counted)):
        measured = [row[key] for row in of_curve(rows)]
        if not min(measured) / ROUNDING <= value <= max(measured) * ROUNDING:
            outside.append(name)
    return ", ".join(outside)


def draw(rows: list[Row], path: Path) -> None:
    """Bits a note over minutes of one core, a line for each size, and their curves up to a day of two cores."""
    picture = figure(7.0, 4.4)
    axes: Axes = picture.add_subplot()
    found = fitted(rows)
    for size, colour in zip(SIZES, COLOURS, strict=True):
        if trained := of_size(rows, size):
            minutes = [row["train_seconds"] / 60 for row in trained]
            bits = [bits_without_bars(row) for row in trained]
            axes.plot(minutes, bits, "o-", color=colour, label=f"{trained[0]['parameters'] / MILLION:.1f} M")
            if found is not None and of_curve(trained):
                draw_curve(axes, trained, found.curve, colour)
    if found is not None:
        for name, seconds in TIMES.items():
            at = CORES * seconds / 60
            axes.axvline(at, color="#999999", linewidth=0.8)
            axes.annotate(f"{name} ", (at, 1), xycoords=("data", "axes fraction"), va="top", ha="right")
    axes.set(xscale="log", xlabel="minutes of one core", ylabel="bits a note, bar tokens not counted")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, title="parameters")
    picture.savefig(path, dpi=110)


def draw_curve(axes: Axes, trained: list[Row], curve: Curve, colour: str) -> None:
    """The curve of one size: dashed for one pass over the music, dotted beyond."""
    longest = CORES * max(TIMES.values())
    seconds = np.geomspace(min(row["train_seconds"] for row in trained), longest, 200)
    tokens = seconds * rate_of(trained)
    bits = curve.bits(trained[0]["parameters"], tokens)
    once = tokens <= one_pass(trained)
    axes.plot(seconds[once] / 60, bits[once], "--", color=colour, linewidth=1)
    axes.plot(seconds[~once] / 60, bits[~once], ":", color=colour, linewidth=1)


def main(runs: Path, out: Path) -> None:
    rows = collected(runs, out)
    publish(out, rows, headlines(rows), tables(rows))
    if rows:
        draw(rows, out / "curves.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
