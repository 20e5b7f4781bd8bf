"""Gathers the runs of run.sh: results.jsonl, metrics.json, confidence.png and the tables of README.md.

    python report.py RUNS OUT

RUNS has the run directories train, asap, pop909 and lm-NAME, and decoder.jsonl and annotations.jsonl. Rows of those
that it lacks stay as they are.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from experiments.results import METRICS, RESULTS, Row, publish, read_metrics, read_rows, table
from pianolm.music.beat_decoding import DEFAULT_SETTINGS
from pianolm.report.piano_roll import figure

SETS = {"asap": "ASAP", "pop909": "POP909"}
TRACKERS = {"": "this tracker", "librosa_": "librosa", "constant_": "constant 120"}
GOALS = {"asap": "0.72, 0.40", "pop909": "0.95, 0.80"}
"""What this tracker was to reach: beat F, downbeat F."""
SCORES = ("beat_f", "beat_f_any_level", "downbeat_f", "tempo_octave_errors")
GRIDS = {"annotated": "annotated", "estimated": "estimated", "clock": "120 BPM"}
DECODER_COLUMNS = {
    "performance_beat_f": "songs: beat F",
    "performance_downbeat_f": "downbeat F",
    "score_beat_f": "scores, played at random: beat F",
    "score_downbeat_f": "downbeat F",
}
MODEL_COLUMNS = {
    "bits_per_note": "bits a note",
    "bits_per_note_tempo": "tempo",
    "bits_per_note_pitch": "pitch",
    "bits_per_note_pattern": "rhythm",
    "bits_per_note_velocity": "velocity",
    "tokens_per_note": "tokens a note",
    "onset_ms_p95": "onsets, ms p95",
    "beat_ms_p95": "beats, ms p95",
}
ANNOTATION_COLUMNS = {
    "midi_beat_f": "tracker and MIDI: beat F",
    "midi_downbeat_f": "downbeat F",
    "audio_beat_f": "tracker and recording: beat F",
    "audio_downbeat_f": "downbeat F",
    "between_beat_f": "the two annotations: beat F",
    "between_downbeat_f": "downbeat F",
}
SAME, OTHER = 0.9, 0.7
"""F-measures from which two annotations have the same beats, or bars, and below which they have other bars."""
DENSITIES = ((0, 5), (5, 8), (8, 12), (12, np.inf))
"""Notes a second."""


def performances(run: Path) -> list[Row]:
    """The rows of a run's beats.csv, rounded."""
    with (run / "beats.csv").open(newline="", encoding="utf-8") as file:
        return [
            {
                "set": run.name,
                "path": row["path"],
                "composer": row["composer"],
                "bar_beats": int(row["bar_beats"]),
                "bar_beats_found": int(row["bar_beats_found"]),
                "notes_per_second": round(int(row["notes"]) / max(float(row["seconds"]), 1), 2),
                **{
                    name: round(float(row[name]), 3)
                    for name in ("confidence", "beat_f", "downbeat_f", "any_level_f")
                    if row[name] != "nan"  # no downbeats are annotated
                },
            }
            for row in csv.DictReader(file)
        ]


def read(runs: Path, kept: list[Row]) -> list[Row]:
    """The rows of all runs; those of runs that RUNS lacks are taken from `kept`."""
    rows = []
    for name in ("train", *SETS):
        rows += [{"run": name, **_figures(runs / name)}] if _ended(runs / name) else _of(kept, "run", name)
    for name in GRIDS:
        run = runs / f"lm-{name}"
        rows += [{"grid": name, **_model(run)}] if _ended(run / "roundtrip") else _of(kept, "grid", name)
    rows += read_rows(runs / "decoder.jsonl") or [row for row in kept if "setting" in row]
    rows += read_rows(runs / "annotations.jsonl") or [row for row in kept if "song" in row]
    for name in SETS:
        rows += performances(runs / name) if _ended(runs / name) else _of(kept, "set", name)
    return rows


def _ended(run: Path) -> bool:
    return (run / METRICS).is_file()


def _of(kept: list[Row], key: str, value: str) -> list[Row]:
    return [row for row in kept if row.get(key) == value]


def _model(run: Path) -> Row:
    """Figures of a language model: its training, its bits and the round trip of its data."""
    trained = {
        name: value
        for name, value in _figures(run / "train").items()
        if name in ("parameters", "tokens_seen")
    }
    return {**trained, **_figures(run / "lm"), **_figures(run / "roundtrip")}


def _figures(run: Path) -> Row:
    return {key: value for key, value in read_metrics(run).items() if not isinstance(value, dict)}


def headlines(rows: list[Row]) -> dict[str, float]:
    by_run = {row["run"]: row for row in rows if "run" in row}
    return {
        f"{name}/{prefix}{score}": by_run[name][f"{prefix}{score}"]
        for name in SETS
        for prefix in TRACKERS
        for score in SCORES
        if f"{prefix}{score}" in by_run[name]
    } | {f"lm/{row['grid']}/bits_per_note": row["bits_per_note"] for row in rows if "grid" in row}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    by_run = {row["run"]: row for row in rows if "run" in row}
    results = [
        [
            f"{name}, {tracker}",
            *(f"{by_run[run][prefix + score]:.3f}" for score in SCORES),
            "" if prefix else GOALS[run],
        ]
        for run, name in SETS.items()
        for prefix, tracker in TRACKERS.items()
        if f"{prefix}beat_f" in by_run[run]
    ]
    head = (
        "validation",
        "beat F",
        "levels forgiven",
        "downbeat F",
        "at another level",
        "goals: beats, downbeats",
    )
    return {
        "results": table(head, results),
        "decoder": table(("setting", "values", *DECODER_COLUMNS.values()), _decoders(rows)),
        "models": table(("beats", *MODEL_COLUMNS.values()), _models(rows)),
        "where": table(
            ("ASAP", "performances", "beat F", "levels forgiven", "downbeat F", "confidence"), _groups(rows)
        ),
        "annotations": table(
            ("POP909", "songs", *ANNOTATION_COLUMNS.values()), _annotations([r for r in rows if "song" in r])
        ),
        "bars": table(("most bars", "performances", "beat F", "downbeat F"), _bars(rows)),
    }


def _decoders(rows: list[Row]) -> list[list[str]]:
    """A line for each setting: its values in order, the default among them, and the figures with each."""
    measured = [row for row in rows if "setting" in row]
    (default,) = (row for row in measured if not row["setting"])
    lines = []
    for setting in dict.fromkeys(row["setting"] for row in measured if row["setting"]):
        usual = {**default, "value": getattr(DEFAULT_SETTINGS, setting)}
        varied = [usual, *(row for row in measured if row["setting"] == setting)]
        varied.sort(key=lambda row: float(row["value"]))
        values = [f"**{row['value']:g}**" if row is usual else f"{row['value']:g}" for row in varied]
        figures = (", ".join(f"{row[name]:.3f}" for row in varied) for name in DECODER_COLUMNS)
        lines.append([setting, ", ".join(values), *figures])
    return lines


def _models(rows: list[Row]) -> list[list[str]]:
    return [
        [GRIDS[row["grid"]], *(f"{row[name]:.2f}" for name in MODEL_COLUMNS)] for row in rows if "grid" in row
    ]


def _groups(rows: list[Row]) -> list[list[str]]:
    """Means over ASAP's performances by composer and by density."""
    groups: dict[str, list[Row]] = defaultdict(list)
    asap = [row for row in rows if row.get("set") == "asap"]
    for row in sorted(asap, key=lambda row: row["composer"]):
        groups[row["composer"]].append(row)
    for low, high in DENSITIES:
        label = f"{low} to {high} notes a second" if high < np.inf else f"more than {low}"
        groups[label] = [row for row in asap if low <= row["notes_per_second"] < high]
    return [
        [
            name,
            str(len(members)),
            *(
                f"{np.mean([row[score] for row in members if score in row]):.2f}"
                for score in ("beat_f", "any_level_f", "downbeat_f", "confidence")
            ),
        ]
        for name, members in groups.items()
        if members
    ]


def _annotations(songs: list[Row]) -> list[list[str]]:
    """Means over all songs, over those whose annotations have the same beats, and over these by their bars."""
    same = [song for song in songs if song["between_beat_f"] >= SAME]
    groups = {
        "all songs": songs,
        "both annotations have the same beats": same,
        "… and the same bars": [song for song in same if song["between_downbeat_f"] >= SAME],
        "… and other bars": [song for song in same if song["between_downbeat_f"] < OTHER],
    }
    return [
        [
            name,
            str(len(members)),
            *(f"{np.mean([one[f] for one in members]):.2f}" for f in ANNOTATION_COLUMNS),
        ]
        for name, members in groups.items()
        if members
    ]


def _bars(rows: list[Row]) -> list[list[str]]:
    """Means over the performances whose usual bar is found, and over those where one of other length is."""
    lines = []
    for name, label in SETS.items():
        pieces = [row for row in rows if row.get("set") == name and row["bar_beats"]]
        groups: dict[str, list[Row]] = {"as annotated": [], "of half as many beats": [], "others": []}
        for row in pieces:
            same, half = (row["bar_beats_found"] * times == row["bar_beats"] for times in (1, 2))
            groups["as annotated" if same else "of half as many beats" if half else "others"].append(row)
        lines += [
            [
                f"{label}, {found}",
                str(len(members)),
                *(f"{np.mean([row[score] for row in members]):.2f}" for score in ("beat_f", "downbeat_f")),
            ]
            for found, members in groups.items()
            if members
        ]
    return lines


def draw(rows: list[Row], path: Path) -> None:
    """Confidence of the estimate against its F-measure, a dot for each performance."""
    picture = figure(5.0, 3.2)
    axes = picture.add_subplot()
    for name, label in SETS.items():
        points = [row for row in rows if row.get("set") == name]
        axes.scatter(
            [p["confidence"] for p in points], [p["beat_f"] for p in points], s=9, label=label, alpha=0.6
        )
    axes.set(xlabel="confidence", ylabel="beat F", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize=8)
    picture.savefig(path, dpi=110)


def main(runs: Path, out: Path) -> None:
    rows = read(runs, read_rows(out / RESULTS))
    publish(out, rows, headlines(rows), tables(rows))
    draw(rows, out / "confidence.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
