"""Figures that cards and pages repeat are those of the experiments, whose tables are those of their results."""

from __future__ import annotations

import json
import re
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


def read_text(path: str) -> str:
    """The text of a page, without its line breaks."""
    return " ".join((ROOT / path).read_text("utf-8").split())


def figures_after(text: str, *words: str) -> list[str]:
    """The number behind each of some words, which follow one another in a text."""
    pattern = ".*?".join(rf"{re.escape(word)} ([\d.]+\d)" for word in words)
    found = re.search(pattern, text)
    assert found, f"no figures behind {words}"
    return list(found.groups())


def measured_by(experiment: str, *names: str) -> list[str]:
    """Headline figures of an experiment."""
    metrics = json.loads((EXPERIMENTS / experiment / "metrics.json").read_text("utf-8"))
    return [str(metrics[name]) for name in names]


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


def test_the_page_of_beats() -> None:
    shown = figures_after(
        read_text("docs/beats.md"), "a beat F-measure of", "(librosa", "a constant 120 BPM", "were chosen, to"
    )
    names = ("asap/beat_f", "asap/librosa_beat_f", "asap/constant_beat_f", "pop909/beat_f")
    assert_rounded(shown, measured_by("beats", *names))


def test_the_page_of_tokens() -> None:
    """Bits a note are those of the ablation; tokens a note are in the words of its README alone."""
    page, ties = read_text("docs/tokens.md"), ("repeat", "implicit", "explicit")
    bits = re.search(r"needs ([\d.]+), ([\d.]+) and ([\d.]+) bits a note", page)
    assert bits
    assert_rounded(bits.groups(), measured_by("ablations", *(f"ties/tokenizer.ties={name}" for name in ties)))
    repeat, implicit, explicit = figures_after(page, "`repeat` takes", "`implicit`", "and `explicit`")
    assert f"({explicit}; {repeat} repeated, {implicit} implicit)" in read_text(
        "experiments/ablations/README.md"
    )


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
