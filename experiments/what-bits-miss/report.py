"""Gathers the rows of measure.py: metrics.json and the tables of README.md.

python report.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from experiments.results import Row, publish, read_rows, table
from pianolm.evaluation.music_statistics import STATISTICS

HUMAN = "human"
RESAMPLES = 1000
MEASURES = {
    "bits": "bits a note",
    "bits_pitch": "of these for pitch",
    "bits_pattern": "for patterns",
    "bits_velocity": "for velocity",
    "bits_tempo": "for tempo",
    **STATISTICS,
    "velocity_sd": "velocity, standard deviation",
    "velocity_r_expected": "velocity, r with what the dynamics model expects",
}


def auc(human: np.ndarray, other: np.ndarray) -> float:
    """Probability that a human excerpt has a higher value than another; ties count half."""
    difference = human[:, None] - other[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def values(rows: list[Row], version: str, measure: str) -> np.ndarray:
    """[P] by song."""
    return np.array([row[measure] for row in rows if row["version"] == version])


def versions(rows: list[Row]) -> list[str]:
    return [name for name in dict.fromkeys(row["version"] for row in rows) if name != HUMAN]


def separation(rows: list[Row], version: str, measure: str) -> tuple[float, float, float]:
    """AUC of human against a version, and the bounds of its 95 % interval over resampled songs."""
    human, other = values(rows, HUMAN, measure), values(rows, version, measure)
    known = ~(np.isnan(human) | np.isnan(other))
    human, other = human[known], other[known]
    rng = np.random.default_rng(0)
    again = []
    for _ in range(RESAMPLES):
        songs = rng.integers(0, human.size, human.size)
        again.append(auc(human[songs], other[songs]))
    low, high = np.quantile(again, (0.025, 0.975))
    return auc(human, other), float(low), float(high)


def share(rows: list[Row], version: str, measure: str) -> float:
    """Percent of songs in which the human excerpt has the higher value; equal ones count half."""
    difference = values(rows, HUMAN, measure) - values(rows, version, measure)
    difference = difference[~np.isnan(difference)]
    return 100 * float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def cell(found: tuple[float, float, float]) -> str:
    """The AUC, in bold where its interval does not hold 0.5."""
    value, low, high = found
    text = f"{value:.2f} ({low:.2f}–{high:.2f})"
    return f"**{text}**" if low > 0.5 or high < 0.5 else text


def headlines(rows: list[Row]) -> dict[str, float]:
    return {
        f"auc_bits/{name.replace(' ', '_')}": round(separation(rows, name, "bits")[0], 3)
        for name in versions(rows)
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    names = versions(rows)
    lines = [
        [words, *(cell(separation(rows, name, key)) for name in names)] for key, words in MEASURES.items()
    ]
    means = [
        [words, *(f"{np.nanmean(values(rows, name, key)):.2f}" for name in (HUMAN, *names))]
        for key, words in MEASURES.items()
    ]
    paired = [
        [words, *(f"{share(rows, name, key):.0f}" for name in names)] for key, words in MEASURES.items()
    ]
    return {
        "auc": table(["human above", *names], lines),
        "pairs": table(["% of songs with human above", *names], paired),
        "means": table(["mean", HUMAN, *names], means),
    }


def main(out: Path) -> None:
    rows = read_rows(out / "results.jsonl")
    publish(out, rows, headlines(rows), tables(rows))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
