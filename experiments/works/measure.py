"""Finds the works of ASAP and ACPAS from their notes and compares them with the titles and piece ids.

python measure.py ASAP ACPAS OTHER,OTHER,... ROWS

OTHER are folders NAME=PATH of further data sets, among whose pieces those of ASAP and ACPAS are looked for as well. A
piece is a file; a pair of pieces counts as one work if ACPAS's distinct_pieces.csv gives both one id (it lists the
titles of ASAP, too), else if their titles are the same.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments.results import append_row
from pianolm.data.sources import Record, collect
from pianolm.data.sources.base import composition_id
from pianolm.data.works import Work
from pianolm.data.works.alignment import align
from pianolm.data.works.finding import Groups, WorkFinder
from pianolm.data.works.note_sketch import NoteSketch, outer_line, sketch_notes
from pianolm.errors import UserError
from pianolm.music.midi import read_midi
from pianolm.music.notes import Notes, make_notes

MEASURED = ("asap", "acpas")
SAMPLE = 1
"""Pairs of each work, and of pieces by its composer of different works, whose shingles are compared."""
VARIANTS = {
    "6 intervals (used)": (6, ()),
    "7 intervals": (7, ()),
    "5 intervals, ratios of inter-onset times in 3 classes": (5, (-0.58, 0.58)),
    "4 intervals, ratios of inter-onset times in 3 classes": (4, (-0.58, 0.58)),
}
WRONG = (0.0, 0.03, 0.05, 0.1)


def read(data_sets: dict[str, str]) -> tuple[list[Record], list[Notes]]:
    """Every file of the data sets that can be read."""
    records, notes = [], []
    for source, root in data_sets.items():
        for record in collect({"source": source, "root": root, "beats": "auto"}, Path()).records:
            try:
                notes.append(read_midi(record.midi_path).notes)
            except UserError:
                continue
            records.append(record)
    return records, notes


def truth(records: Sequence[Record], acpas: str) -> list[str]:
    """Id in distinct_pieces.csv of each piece of ASAP and ACPAS, else its title; of other pieces the id of its set."""
    ids: dict[str, str] = {}
    with (Path(acpas) / "distinct_pieces.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            for title in (row["ASAP_title"], row["CPM_title"]):
                if title:
                    ids.setdefault(composition_id(row["composer"], title), f"ACPAS {row['id']}")
    return [ids.get(record.composition, record.composition) for record in records]


def pairs(labels: Iterable[object]) -> int:
    return sum(count * (count - 1) // 2 for count in Counter(labels).values())


def agreement(found: Sequence[int], true: Sequence[str]) -> dict[str, float]:
    """Precision and recall over pairs of pieces, and the mean of both over works, so that each counts alike."""
    both = pairs(zip(found, true, strict=True))
    by_true, by_found = defaultdict(list), defaultdict(list)
    for a, b in zip(found, true, strict=True):
        by_true[b].append(a)
        by_found[a].append(b)
    recalls = [pairs(labels) / pairs([0] * len(labels)) for labels in by_true.values() if len(labels) > 1]
    precisions = [pairs(labels) / pairs([0] * len(labels)) for labels in by_found.values() if len(labels) > 1]
    return {
        "pieces": len(found),
        "works": len(by_true),
        "true_pairs": pairs(true),
        "found_pairs": pairs(found),
        "precision": both / max(pairs(found), 1),
        "recall": both / max(pairs(true), 1),
        "precision_of_works": float(np.mean(precisions or [1.0])),
        "recall_of_works": float(np.mean(recalls or [1.0])),
    }


def find(sketches: Sequence[NoteSketch], works: Sequence[Work | None]) -> tuple[list[int], float]:
    """The group of each piece by its notes, and the processor time in ms a piece."""
    groups = Groups(len(sketches))
    start = time.process_time()
    finder = WorkFinder(works, groups)
    for index, sketch in enumerate(sketches):
        finder.add(index, sketch)
    used = time.process_time() - start
    return [groups.find(index) for index in range(len(sketches))], 1000 * used / len(sketches)


def rendition(notes: Notes, rng: np.random.Generator, wrong: float) -> Notes:
    """Another rendition: slower and faster, chords apart, transposed, this share of notes missing and as many wrong."""
    notes = notes[rng.random(notes.size) >= wrong]
    tempo = np.exp(0.2 * np.sin(notes["onset_sec"] / rng.uniform(5, 20)) + rng.normal(0, 0.15))
    onset = np.cumsum(np.diff(notes["onset_sec"], prepend=0.0) * tempo)
    onset = np.maximum(onset + rng.normal(0, 0.01, onset.size), 0)
    shift = np.clip(rng.integers(-5, 7), -int(notes["pitch"].min()), 127 - int(notes["pitch"].max()))
    pitch = notes["pitch"].astype(int) + shift
    other = rng.random(pitch.size) < wrong
    pitch = np.clip(pitch + other * rng.choice([-12, -2, -1, 1, 2, 12], pitch.size), 0, 127)
    return make_notes(onset, onset + 0.1, pitch, notes["velocity"])


def shingles(notes: Notes, intervals: int, ratio_bounds: tuple[float, ...]) -> set[tuple[int, ...]]:
    """Shingles of both outer lines, without those of fewer than three different intervals; with ratios if given."""
    found = set()
    for sign in (1, -1):
        line = outer_line(np.ascontiguousarray(notes["onset_sec"]), sign * notes["pitch"].astype(np.int16))
        steps = np.diff(notes["pitch"][line].astype(int))
        gaps = np.maximum(np.diff(notes["onset_sec"][line]), 1e-3)
        classes = np.digitize(np.log2(gaps[1:] / gaps[:-1]), ratio_bounds) if ratio_bounds else None
        for i in range(steps.size - intervals + 1):
            window = tuple(steps[i : i + intervals].tolist())
            if len(set(window)) >= 3:
                ratios = () if classes is None else tuple(classes[i : i + intervals - 1].tolist())
                found.add((sign, *window, *ratios))
    return found


def jaccard(a: set[tuple[int, ...]], b: set[tuple[int, ...]]) -> float:
    return len(a & b) / max(len(a | b), 1)


def sampled_pairs(records: Sequence[Record], true: Sequence[str], same: bool) -> list[tuple[int, int]]:
    """Up to `SAMPLE` pairs of each work, or of pieces by one composer of different works."""
    rng = np.random.default_rng(0)
    by_work, by_composer = defaultdict(list), defaultdict(list)
    for index, work in enumerate(true):
        by_work[work].append(index)
        by_composer[records[index].composer].append(index)
    found = []
    for members in by_work.values():
        first = members[0]
        others = members if same else by_composer[records[first].composer]
        for a, b in zip(rng.choice(members, SAMPLE), rng.choice(others, SAMPLE), strict=True):
            if a != b and (true[a] == true[b]) == same:
                found.append((int(a), int(b)))
    return found


def percentiles(values: Sequence[float], at: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in np.percentile(values, at)]


def compare_shingles(
    notes: Sequence[Notes], same: list[tuple[int, int]], other: list[tuple[int, int]]
) -> list[dict]:
    rows = []
    for name, variant in VARIANTS.items():
        sets = {index: shingles(notes[index], *variant) for pair in (*same, *other) for index in pair}
        alike, unlike = ([jaccard(sets[a], sets[b]) for a, b in pairs_] for pairs_ in (same, other))
        rows.append(
            {
                "shingles": name,
                "pairs_of_works": len(alike),
                "other_pairs": len(unlike),
                "same_1_5_50": percentiles(alike, (1, 5, 50)),
                "other_50_99_100": percentiles(unlike, (50, 99, 100)),
            }
        )
    return rows


def main(asap: str, acpas: str, others: str, rows: Path) -> None:
    named = dict(part.split("=", 1) for part in others.split(",") if part)
    records, notes = read({"asap": asap, "acpas": acpas, **named})
    start = time.process_time()
    sketches = [sketch_notes(piece) for piece in notes]
    sketching = 1000 * (time.process_time() - start) / len(notes)
    true = truth(records, acpas)
    measured = [index for index, record in enumerate(records) if record.source in MEASURED]
    works = [Work(record.composer, record.title) if record.composer else None for record in records]
    for name, known in (("notes alone", [None] * len(works)), ("notes, composers and titles", works)):
        found, ms = find(sketches, known)
        for part in (MEASURED, ("asap",), ("acpas",)):
            of = [index for index in measured if records[index].source in part]
            append_row(
                rows,
                {
                    "finding": name,
                    "pieces_of": " and ".join(part),
                    "among": len(records),
                    **agreement([found[i] for i in of], [true[i] for i in of]),
                    "sketch_ms": sketching,
                    "find_ms": ms,
                },
            )
    _noise_rows(records, notes, true, rows)
    few = [index for index in measured if notes[index].size < 2000]
    of = [records[i] for i in few], [true[i] for i in few]
    both = [[(few[a], few[b]) for a, b in sampled_pairs(*of, same)] for same in (True, False)]
    for row in compare_shingles(notes, *both):
        append_row(rows, row)
    append_row(rows, _coverage(sketches, *both))


def _coverage(
    sketches: Sequence[NoteSketch], same: list[tuple[int, int]], other: list[tuple[int, int]]
) -> dict:
    def cover(a: int, b: int) -> float:
        return align(sketches[a], sketches[b]).coverage

    return {
        "coverage_same_0_1_5_50": percentiles([cover(*pair) for pair in same], (0, 1, 5, 50)),
        "coverage_other_50_99_100": percentiles([cover(*pair) for pair in other], (50, 99, 100)),
    }


def _noise_rows(records: Sequence[Record], notes: Sequence[Notes], true: Sequence[str], rows: Path) -> None:
    """One piece of each work and a rendition of it: how many find each other, and how many a stranger."""
    first = {work: index for index, work in reversed(list(enumerate(true))) if notes[index].size >= 200}
    chosen = sorted(first.values())[:: max(len(first) // 400, 1)]
    for wrong in WRONG:
        rng = np.random.default_rng(0)
        pieces = [notes[i] for i in chosen] + [rendition(notes[i], rng, wrong) for i in chosen]
        found, _ = find([sketch_notes(piece) for piece in pieces], [None] * len(pieces))
        names = [true[i] for i in chosen] * 2
        append_row(rows, {"wrong_and_missing": wrong, **agreement(found, names)})


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:4], Path(sys.argv[4]))
