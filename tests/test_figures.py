"""Figures that cards and pages repeat are those of the experiments, whose tables are those of their results."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .markdown import ROOT, table_rows

EXPERIMENTS = ROOT / "experiments"


def assert_rounded(shown: Iterable[str], measured: Iterable[str]) -> None:
    """Each figure as shown is the one measured, rounded to the places that it has."""
    for short, full in zip(shown, measured, strict=True):
        text = short.strip("*")
        half = 0.5 * 10.0 ** -len(text.partition(".")[2])
        assert abs(float(text) - float(full)) <= half + 1e-9, f"{short} shown, {full} measured"


def read_rows(path: str) -> list[list[str]]:
    return table_rows((ROOT / path).read_text("utf-8"))


def test_the_card_of_pop() -> None:
    measured = {row[0]: row[3:5] for row in read_rows("experiments/box-model/README.md") if len(row) == 6}
    shown = {row[0]: row[1:] for row in read_rows("pianolm/models/pop/README.md") if row[0] in measured}
    assert len(shown) == 7
    for label, figures in shown.items():
        assert_rounded(figures, measured[label])
    bits = measured["bits a note, bar tokens not counted"][0]
    for path in ("pianolm/models/pop/README.md", "experiments/box-model/README.md"):
        assert f"{bits} bits a note" in (ROOT / path).read_text("utf-8")


def test_the_card_of_the_beat_tracker() -> None:
    measured = [
        row for row in read_rows("experiments/beats/README.md") if row[0].startswith(("ASAP, ", "POP909, "))
    ]
    names = ("ASAP, 94 performances", "librosa's beat tracker on the same", "120 BPM", "POP909 721–800")
    shown = [row for row in read_rows("pianolm/models/beats/README.md") if row[0] in names]
    assert len(shown) == 5
    for row, figures in zip(shown, measured[:5], strict=True):
        assert_rounded(row[1:], figures[1:4])


def test_the_page_of_the_velocity_codec() -> None:
    names = {"`velvq=segment`": "`velvq=segment velvq.seed=0`", "`velvq=frame`": "`velvq=frame`"}
    measured = {
        row[0]: row[1:6] for row in reversed(read_rows("experiments/velvq/README.md"))
    }  # the first table wins
    shown = {row[0]: row[1:6] for row in read_rows("docs/velvq.md") if row[0] in names}
    assert set(shown) == set(names)
    for name, figures in shown.items():
        assert_rounded(figures, measured[names[name]])


def test_the_card_of_the_dynamics_model() -> None:
    path = "experiments/dynamics/results.jsonl"
    runs = {
        row["run"]: row
        for row in map(json.loads, (ROOT / path).read_text("utf-8").splitlines())
        if "run" in row
    }
    sets = {"POP909 721–800": "-pop909", "ASAP, 32 openings": ""}
    models = {"told the median": "box-told", "not told": "box", "the piece's median": "median"}
    shown = [
        row for row in read_rows("pianolm/models/dynamics/README.md") if row[0].partition(": ")[0] in sets
    ]
    assert len(shown) == 6
    for label, *figures in shown:
        name, _, model = label.partition(": ")
        run = runs[models[model] + sets[name]]
        measured = [run.get(f"velocity_{key}") for key in ("r", "mae", "js")]
        assert_rounded(
            *zip(*((a, b) for a, b in zip(figures, measured, strict=True) if a != "–"), strict=True)
        )
