"""Gathers the runs of run.sh: results.jsonl, metrics.json, curve.png and the tables of README.md.

python report.py RUNS OUT    run directories of run.sh; rows of those that RUNS lacks stay as they are
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure

from experiments.results import (
    METRICS,
    RESULTS,
    Row,
    bits_without_bars,
    publish,
    read_metrics,
    read_rows,
    table,
)
from pianolm.artifacts import read_record
from pianolm.evaluation.music_statistics import STATISTICS


class Training(NamedTuple):
    """A training of run.sh.

    Attributes:
        label: What the picture calls it.
        shown: Its name, music, million tokens, context and rate, as in the table of README.md.
        precision: That of its matrix products.
    """

    label: str
    shown: tuple[str, str, str, str, str]
    precision: str


_HALF_COSINE = "half a cosine"
_SOME_SCORES = "POP909, scores at a weight of 0.05"
_DECAYING = "constant, then decaying to 0 over 70 %"
_GAPS_AND_CONTROLS = "the same; 30 % of the windows with gaps, 30 % with controls"
_GAPS = "the same; 60 % of the windows with gaps, their suffix first"
_NO_VELOCITIES = "POP909 and scores in equal parts, no velocities"
TRAININGS = {
    "first/base": Training(
        "base: without velocities", ("first, *base*", _NO_VELOCITIES, "4.1", "1,024", _HALF_COSINE), "bf16"
    ),
    "first/finetune": Training(
        "finetune", ("first, *finetune*", "POP909", "5.3", "1,024", _HALF_COSINE), "bf16"
    ),
    "second/finetune": Training("more", ("second", "POP909", "5.3", "1,024", _HALF_COSINE), "bf16"),
    "third/finetune": Training(
        "more, at a constant rate", ("third", _SOME_SCORES, "5.0", "1,024", "constant"), "fp32"
    ),
    "fourth/finetune": Training(
        "context 2,048, the rate decays", ("fourth", _SOME_SCORES, "4.9", "2,048", _DECAYING), "fp32"
    ),
    "fifth/finetune": Training(
        "the same with gaps and controls", ("fifth", _GAPS_AND_CONTROLS, "4.9", "2,048", "as before"), "fp32"
    ),
    "sixth/finetune": Training("mostly gaps", ("sixth", _GAPS, "4.5", "2,048", "as before"), "fp32"),
}
"""The trainings, by their directories below RUNS."""
MEASURED = {"second": "after two runs", "fourth": "after four", "pop": "pop"}
"""Models that are measured, by the beginning of the names of their runs, and their columns."""
TAKES = {
    "as it comes": ("pop-samples", *(f"pop-take-{seed}" for seed in range(1, 10))),
    "pitches at temperature 0.75": tuple(f"pop-pitch-{seed}" for seed in range(10)),
    "patterns at top-p 0.98": tuple(f"pop-pattern-{seed}" for seed in range(4)),
}
"""Runs of the same measure of `pop` by its settings, each with another seed."""
WANTED = {
    "bar_likeness": "≥ 0.25",
    "in_key": "≥ 97",
    "bass_on_downbeat": "≥ 72",
    "longer_than_a_bar": "≤ 0.5",
    "blips": "≤ 1.5",
    "tempo_sd_bpm": "≤ 0.5",
    "notes_per_beat": "3.5–4.5",
    "longest_copy_notes": "≤ 10",
}
WORDS = {**STATISTICS, "longest_copy_notes": "longest run of notes copied from training"}


def curve(run: Path) -> list[list[float]]:
    """[tokens seen, validation bits per note] of a training, in the order of steps."""
    rows: list[dict[str, str]] = []
    for path in sorted(run.glob("csv*/metrics.csv")):
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    tokens = {int(row["step"]): float(row["tokens_seen"]) for row in rows if row.get("tokens_seen")}
    per_step = max(tokens.values()) / (max(tokens) + 1)
    found = [(int(row["step"]), row["val/bits_per_note"]) for row in rows if row.get("val/bits_per_note")]
    return [[round((step + 1) * per_step), round(float(bits), 3)] for step, bits in found]


def seconds_of(runs: Path, run: str) -> float:
    """Time of a training. The figures of a run are those of its last stage, so base is asked for its artifact's."""
    name, stage = run.split("/")
    metrics = json.loads((runs / name / METRICS).read_text("utf-8"))
    if metrics["stage"] == stage:
        return float(metrics["seconds"])
    record = read_record(Path(metrics["artifact"]).parents[1] / stage / metrics["upstream"][stage])
    assert record is not None, f"{runs / name}: the artifact of stage {stage} is at hand"
    return float(record["metrics"]["seconds"])


def read(runs: Path, kept: list[Row]) -> list[Row]:
    """The rows of all runs, in their order."""
    found = by_run(kept)
    for run in TRAININGS:
        if (runs / run).is_dir():
            found[run] = {"run": run, "curve": curve(runs / run), "seconds": seconds_of(runs, run)}
    measures = [f"{run}-{measure}" for run in MEASURED for measure in ("lm", "samples")]
    measures += [take for of_setting in TAKES.values() for take in of_setting if take not in measures]
    for run in measures:
        if (runs / run).is_dir():
            figures = read_metrics(runs / run)
            found[run] = {"run": run, **{key: value for key, value in figures.items() if key != "upstream"}}
    return [found[run] for run in (*TRAININGS, *measures)]


def by_run(rows: list[Row]) -> dict[str, Row]:
    return {row["run"]: row for row in rows}


def headlines(rows: list[Row]) -> dict[str, float]:
    found = by_run(rows)
    figures: dict[str, float] = {}
    for run in MEASURED:
        figures[f"{run}/bits_per_note_without_bars"] = round(bits_without_bars(found[f"{run}-lm"]), 2)
        samples = found[f"{run}-samples"]
        figures |= {f"{run}/{name}": round(samples[name], 3) for name in WORDS if name in samples}
    (usual, *_) = TAKES.values()
    return figures | {
        f"pop/takes/{name}": round(fmean(found[take][name] for take in usual), 3) for name in WORDS
    }


def take_lines(found: dict[str, Row]) -> list[list[str]]:
    """For each statistic its mean over takes with each setting, in brackets the least and the most of one take."""
    lines = []
    for name, words in WORDS.items():
        cells = []
        for takes in TAKES.values():
            values = [found[take][name] for take in takes]
            cells.append(f"{fmean(values):.2f} ({min(values):.2f}–{max(values):.2f})")
        lines.append([words, *cells, WANTED[name]])
    return lines


def tables(rows: list[Row]) -> dict[str, list[str]]:
    found = by_run(rows)
    samples = [found[f"{run}-samples"] for run in MEASURED]
    bits = [f"{bits_without_bars(found[f'{run}-lm']):.2f}" for run in MEASURED]
    lines = [["bits a note, bar tokens not counted", *bits, "–", "≤ 12.2"]]
    for name, words in WORDS.items():
        values = [*(row.get(name) for row in samples), samples[-1].get(f"human_{name}")]
        lines.append([words, *("–" if v is None else f"{v:.2f}" for v in values), WANTED[name]])
    return {
        "results": table(["", *MEASURED.values(), "human rest", "goal"], lines),
        "takes": table(
            ["", *(f"{setting}, {len(takes)} takes" for setting, takes in TAKES.items()), "goal"],
            take_lines(found),
        ),
        "trainings": table(
            ["run", "music", "million tokens", "context", "rate", "minutes of a core"],
            [
                [*one.shown, f"{found[run]['seconds'] / 60:.0f}, {one.precision}"]
                for run, one in TRAININGS.items()
            ],
        ),
    }


def draw(rows: list[Row], path: Path) -> None:
    """Validation bits per note over all tokens seen; base does not pay for velocities."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes, start, found = figure.subplots(), 0.0, by_run(rows)
    for run, training in TRAININGS.items():
        points = found[run]["curve"]
        million = [(start + tokens) / 1e6 for tokens, _ in points]
        axes.plot(million, [bits for _, bits in points], marker=".", label=training.label)
        start += points[-1][0]
    axes.set_xlabel("million tokens seen")
    axes.set_ylabel("val/bits_per_note")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(runs: Path, out: Path) -> None:
    rows = read(runs, read_rows(out / RESULTS))
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "curve.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
