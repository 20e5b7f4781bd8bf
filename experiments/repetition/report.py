"""Gathers the runs of run.sh: results.jsonl, metrics.json, statistics.png and the tables of README.md.

python report.py RUNS OUT    each run directory is one try; RUNS/speed.json comes from speed.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import OmegaConf

from experiments.results import RESULTS, Row, publish, read_metrics, read_rows, table
from pianolm.report.piano_roll import figure

STATISTICS = {
    "bar_likeness": ("bar likeness", 3),
    "in_key": ("in key, %", 1),
    "bass_on_downbeat": ("bass on downbeats, %", 1),
    "longer_than_a_bar": ("longer than a bar, a piece", 2),
    "blips": ("blips, %", 1),
    "tempo_sd_bpm": ("tempo, sd in BPM", 2),
    "notes_per_beat": ("notes a beat", 2),
    "longest_copy_notes": ("longest copy, notes", 1),
}
DISTANCES = {
    "js_density": "density",
    "js_polyphony": "polyphony",
    "js_note_length": "note length",
    "js_inter_onset": "inter-onset",
    "js_pitch_class": "pitch class",
}
LEFT_OUT = ("page=", "audio=")


def settings(run: Path) -> tuple[str, str]:
    """The options `generate.*` that a run was given, and those of single kinds of token."""
    given = [str(one).lstrip("+") for one in OmegaConf.load(run / ".hydra" / "overrides.yaml")]
    options = [one.removeprefix("generate.") for one in given if one.startswith("generate.")]
    of_kinds = [one.removeprefix("by_kind.") for one in options if one.startswith("by_kind.")]
    general = [one for one in options if not one.startswith(("by_kind.", *LEFT_OUT))]
    return " ".join(general), " ".join(sorted(of_kinds))


def read(runs: Path) -> list[Row]:
    """A row for each try in the order in which they ended, and one for the speed."""
    found = sorted(runs.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
    rows: list[Row] = []
    for path in found:
        figures = read_metrics(path.parent)
        model = figures.pop("upstream")["model"]
        figures.pop("seconds")
        general, of_kinds = settings(path.parent)
        names = {"run": path.parent.name, "model": model, "settings": general, "by_kind": of_kinds}
        rows.append({**names, **figures})
    speed = runs / "speed.json"
    return [*rows, json.loads(speed.read_text("utf-8"))] if speed.is_file() else rows


def kept(rows: list[Row], before: list[Row]) -> list[Row]:
    """Earlier tries of the same model that are not among the runs, which were of another version of the code."""
    names, models = {row["run"] for row in tries(rows)}, {row["model"] for row in tries(rows)}
    return [row for row in tries(before) if row["run"] not in names and row["model"] in models]


def tries(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "run" in row]


def humans(rows: list[Row]) -> dict[int, Row]:
    """For each number of pieces, a row with the human figures of these pieces."""
    found: dict[int, Row] = {}
    for row in tries(rows):
        found[row["pieces"]] = {**found.get(row["pieces"], {}), **row}  # not every run knows the copies
    return found


def headlines(rows: list[Row]) -> dict[str, float]:
    figures = {
        f"{row['run']}/{name}": round(row[name], digits + 1)
        for row in tries(rows)
        for name, (_, digits) in STATISTICS.items()
        if name in row
    }
    speeds = [row["tokens_per_cpu_second"] for row in rows if "tokens_per_cpu_second" in row]
    return figures | {f"tokens_per_cpu_second/{name}": value for one in speeds for name, value in one.items()}


def cell(row: Row, key: str, digits: int) -> str:
    return f"{row[key]:.{digits}f}" if key in row else "–"


def tables(rows: list[Row]) -> dict[str, list[str]]:
    words = [words for words, _ in STATISTICS.values()]
    lines = [
        [row["run"], str(row["pieces"])]
        + [cell(row, name, digits) for name, (_, digits) in STATISTICS.items()]
        for row in tries(rows)
    ]
    lines += [
        ["human", str(pieces)]
        + [cell(row, f"human_{name}", digits) for name, (_, digits) in STATISTICS.items()]
        for pieces, row in humans(rows).items()
    ]
    distances = [
        [row["run"], str(row["pieces"])] + [cell(row, name, 3) for name in DISTANCES] for row in tries(rows)
    ]
    distances += [
        ["two halves of the human", str(pieces)] + [cell(row, f"{name}_human", 3) for name in DISTANCES]
        for pieces, row in humans(rows).items()
    ]
    return {
        "statistics": table(["try", "songs", *words], lines),
        "distances": table(["try", "songs", *DISTANCES.values()], distances),
        "settings": table(
            ["try", "generate.", "by_kind."],
            [[row["run"], f"`{row['settings']}`", f"`{row['by_kind'] or '{}'}`"] for row in tries(rows)],
        ),
    }


def draw(rows: list[Row], path: Path) -> None:
    """The statistics of each try; dashed lines are the human ones."""
    shown = tries(rows)
    human = humans(rows)[shown[-1]["pieces"]]
    picture = figure(13.0, 1.2 + 0.6 * len(shown))
    axes = picture.subplots(2, 4, sharey=True).flat
    places = range(len(shown))
    for ax, (name, (words, _)) in zip(axes, STATISTICS.items(), strict=True):
        ax.plot([row.get(name) for row in shown], places, "o", color="#4c72b0", markersize=5)
        ax.axvline(human.get(f"human_{name}"), color="#c44e52", linestyle="--", linewidth=1)
        ax.set_title(words, fontsize=9)
        ax.set_yticks(places, [row["run"] for row in shown], fontsize=7)
        ax.tick_params(axis="x", labelsize=7)
        ax.grid(alpha=0.3)
        ax.margins(y=0.1)
    ax.invert_yaxis()
    picture.savefig(path, dpi=90)


def main(runs: Path, out: Path) -> None:
    rows = read(runs)
    speed = [row for row in rows if row not in tries(rows)]
    rows = [*tries(rows), *kept(rows, read_rows(out / RESULTS)), *speed]
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "statistics.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
