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

from experiments.controls.obey import BOTH, NOTHING, TILTED
from experiments.results import Row, publish, read_rows, table
from pianolm.tokenizer.vocabulary import LEVELS

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
    pairs = np.array([(row[f"{name}_level"], row[name]) for row in rows if row[name] is not None])
    rng = np.random.default_rng(0)
    again = [spearmanr(*pairs[rng.integers(0, len(pairs), len(pairs))].T).statistic for _ in range(RESAMPLES)]
    low, high = np.quantile(again, (0.025, 0.975))
    return float(spearmanr(*pairs.T).statistic), float(low), float(high)


def mean(rows: Iterable[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows if row[name] is not None]))


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        f"rank_correlation_{name}{'_of_both' if asked == BOTH else ''}{'_prompted' if prompt else ''}": round(
            correlation(of(rows, asked, prompt), name)[0], 3
        )
        for name in ASKED
        for asked in (name, BOTH)
        for prompt in (False, True)
        if of(rows, asked, prompt)
    }


def other(name: str) -> str:
    """Of loudness and density the one that is not named."""
    return next(asked for asked in ASKED if asked != name)


def level_figures(rows: list[Row], name: str) -> list[str]:
    """How many pieces, the mean of each level, and the rank correlation."""
    found, low, high = correlation(rows, name)
    by_level = [[row for row in rows if row[f"{name}_level"] == level] for level in range(1, LEVELS + 1)]
    means = [f"{mean(some, name):.{0 if name == 'loudness' else 1}f}" for some in by_level]
    return [str(len(rows)), *means, f"{found:.2f} ({low:.2f}–{high:.2f})"]


def tables(rows: list[Row]) -> dict[str, list[str]]:
    levels, others = [], []
    for way, name, prompt in product(ways(rows), (NOTHING, *ASKED, BOTH), STARTS):
        asked = of(rows, name, prompt, way)
        if not asked or (name == NOTHING and way != TILTED):
            continue
        figures = [f"{mean(asked, key):.{2 if key == 'bar_likeness' else 1}f}" for key in STATISTICS]
        others.append([name, "" if name == NOTHING else way, STARTS[prompt], str(len(asked)), *figures])
        for measured in ASKED if name == BOTH else (name,) if name != NOTHING else ():
            words = measured if name != BOTH else f"{measured}, and {other(measured)}"
            levels.append([words, way, STARTS[prompt], *level_figures(asked, measured)])
    head = ["asked for", "how", "begins with", "pieces"]
    return {
        "levels": table([*head, *map(str, range(1, LEVELS + 1)), "rank correlation"], levels),
        "statistics": table([*head, *STATISTICS.values()], others),
    }


def draw(rows: list[Row], file: Path) -> None:
    """Every piece: what was asked and what came."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rng = np.random.default_rng(0)
    for axis, name, unit in zip(figure.subplots(1, 2), ASKED, ("mean velocity", "notes a beat"), strict=True):
        for prompt, colour in ((False, "tab:blue"), (True, "tab:orange")):
            pairs = np.array(
                [(r[f"{name}_level"], r[name]) for r in of(rows, name, prompt) if r[name] is not None]
            )
            shift = rng.uniform(-0.3, 0.0, len(pairs)) + 0.3 * prompt
            label = "goes on from a song" if prompt else "begins by itself"
            axis.plot(pairs[:, 0] + shift, pairs[:, 1], ".", ms=3, color=colour, label=label)
        axis.set(xlabel=f"{name} asked for", ylabel=unit, xticks=range(1, LEVELS + 1))
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
