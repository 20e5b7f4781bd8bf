"""Every experiment has the same form, and its README and headline figures are those of its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.results import METRICS, README, RESULTS, read_rows
from tests.experiment import EXPERIMENTS, load

FOLDERS = sorted(path.parent.relative_to(EXPERIMENTS).as_posix() for path in EXPERIMENTS.rglob("run.sh"))


def test_every_folder_is_an_experiment() -> None:
    folders = {path.parent.relative_to(EXPERIMENTS).as_posix() for path in EXPERIMENTS.glob(f"*/**/{README}")}
    assert folders == set(FOLDERS)
    assert {name for name in FOLDERS if name.startswith("benchmarks/")} >= {
        "benchmarks/generation-speed",
        "benchmarks/tokenizer-speed",
        "benchmarks/training-speed",
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_has_question_answer_table_picture_and_command_in_order(folder: str) -> None:
    text = (EXPERIMENTS / folder / README).read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) < 120
    assert lines[0].startswith("# ")
    assert lines[0].endswith("?")
    assert lines[2].startswith("**")
    assert lines[2].endswith("**"), "the answer is one line"
    table = next(number for number, line in enumerate(lines) if line.startswith("| "))
    command = next(number for number, line in enumerate(lines) if line.startswith("```bash"))
    assert 3 < table < command
    assert f"experiments/{folder}/" in lines[command + 1]
    pictures = [number for number, line in enumerate(lines) if line.startswith("![")]
    assert bool(pictures) == bool(list((EXPERIMENTS / folder).glob("*.png")))
    assert not pictures or table < pictures[0] < command


@pytest.mark.parametrize("folder", FOLDERS)
def test_tables_and_headline_figures_are_those_of_the_rows(folder: str) -> None:
    report, rows = load(f"{folder}/report.py"), read_rows(EXPERIMENTS / folder / RESULTS)
    assert rows
    assert all(isinstance(row, dict) for row in rows)
    metrics = json.loads((EXPERIMENTS / folder / METRICS).read_text("utf-8"))
    assert metrics
    assert all(isinstance(value, int | float) and not isinstance(value, bool) for value in metrics.values())
    assert report.headlines(rows) == metrics
    text = (EXPERIMENTS / folder / README).read_text("utf-8")
    for name, lines in report.tables(rows).items():
        assert "\n".join([f"<!-- {name}: written by report.py -->", *lines, "<!-- end -->"]) in text, name


@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_and_links_of_a_readme_exist(folder: str) -> None:
    text = (EXPERIMENTS / folder / README).read_text("utf-8")
    for target in [part.partition(")")[0] for part in text.split("](")[1:]]:
        if not target.startswith("http"):
            assert (Path(EXPERIMENTS) / folder / target).exists(), target
