"""Gathers the rows of obey.py: metrics.json and the tables of README.md, and levels.png.

python report.py OUT
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from experiments.controls.obey import NOTHING, TILTED
from experiments.results import Row, publish, read_rows, table

ASKED = ("loudness", "density")
STARTS = {False: "nothing", True: "16 beats of a song"}
STATISTICS = {
    "in_key": "notes in key, %",
    "bass_on_downbeat": "bass on the downbeat, %",
    "bar_likeness": "likeness of bars",
}
RESAMPLES = 1000


def of(rows: Iterable[Row], asked: str, prompt: bool, way: str = TILTED) -> list[Row]:
    """The rows of what was asked in one way; those of nothing have a way of their own."""
    way = NOTHING if asked == NOTHING else way
    return [row for row in rows if (row["way"], row["asked"], row["prompt"]) == (way, asked, prompt)]


def ways(rows: Iterable[Row]) -> list[str]:
    """The ways of asking: tilted first, then with guidance from weak to strong."""
    return [
        TILTED,
        *sorted({row["way"] for row in rows} - {TILTED, NOTHING}, key=lambda way: (len(way), way)),
    ]


def correlation(rows: list[Row], name: str) -> tuple[float, float, float]:
    """Rank correlation of level and measurement, and the bounds of its 95 % interval over resampled pieces."""
    pairs = np.array([(row["level"], row[name]) for row in rows if row[name] is not None])
    rng = np.random.default_rng(0)
    again = [spearmanr(*pairs[rng.integers(0, len(pairs), len(pairs))].T).statistic for _ in range(RESAMPLES)]
    low, high = np.quantile(again, (0.025, 0.975))
    return float(spearmanr(*pairs.T).statistic), float(low), float(high)


def mean(rows: Iterable[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows if row[name] is not None]))


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        f"rank_correlation_{name}{'_prompted' if prompt else ''}": round(
            correlation(of(rows, name, prompt), name)[0], 3
        )
        for name in ASKED
        for prompt in (False, True)
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    levels, others = [], []
    for way, name, prompt in product(ways(rows), (NOTHING, *ASKED), STARTS):
        asked = of(rows, name, prompt, way)
        if not asked or (name == NOTHING and way != TILTED):
            continue
        figures = [f"{mean(asked, key):.{2 if key == 'bar_likeness' else 1}f}" for key in STATISTICS]
        others.append([name, "" if name == NOTHING else way, STARTS[prompt], str(len(asked)), *figures])
        if name != NOTHING:
            found, low, high = correlation(asked, name)
            means = [mean([row for row in asked if row["level"] == level], name) for level in range(1, 9)]
            figures = [f"{value:.0f}" if name == "loudness" else f"{value:.1f}" for value in means]
            levels.append(
                [name, way, STARTS[prompt], str(len(asked)), *figures, f"{found:.2f} ({low:.2f}–{high:.2f})"]
            )
    head = ["asked for", "how", "begins with", "pieces"]
    return {
        "levels": table([*head, *map(str, range(1, 9)), "rank correlation"], levels),
        "statistics": table([*head, *STATISTICS.values()], others),
    }


def draw(rows: list[Row], file: Path) -> None:
    """Every piece: what was asked and what came."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rng = np.random.default_rng(0)
    for axis, name, unit in zip(figure.subplots(1, 2), ASKED, ("mean velocity", "notes a beat"), strict=True):
        for prompt, colour in ((False, "tab:blue"), (True, "tab:orange")):
            pairs = np.array([(r["level"], r[name]) for r in of(rows, name, prompt) if r[name] is not None])
            shift = rng.uniform(-0.3, 0.0, len(pairs)) + 0.3 * prompt
            label = "goes on from a song" if prompt else "begins by itself"
            axis.plot(pairs[:, 0] + shift, pairs[:, 1], ".", ms=3, color=colour, label=label)
        axis.set(xlabel=f"{name} asked for", ylabel=unit, xticks=range(1, 9))
        axis.legend(frameon=False)
    figure.savefig(file, dpi=110)


def main(out: Path) -> None:
    rows = read_rows(out / "results.jsonl")
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "levels.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
