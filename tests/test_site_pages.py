"""Pages that are made from the code and the experiments are those that these give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.site.bars import demo_piece
from docs.site.book import SHOWN, book_page
from docs.site.keys import keys_page
from docs.site.options import TOPICS, option_pages
from docs.site.stages import stages_page
from docs.site.tour import with_outputs
from pianolm import Piece
from pianolm.config.help import options
from pianolm.config.renamed import REMOVED, RENAMED
from pianolm.report.tokens import PANELS
from pianolm.run import CONFIG_DIR
from pianolm.stages import find_stage, stage_names

from .markdown import ROOT, anchors, blocks, sections

HINT = "write it again with `python -m docs.site.write`"
EXPERIMENTS = ROOT / "experiments"


def test_the_book_of_experiments_is_up_to_date() -> None:
    assert (EXPERIMENTS / "README.md").read_text("utf-8") == book_page(EXPERIMENTS), HINT


def test_the_book_has_a_line_with_question_answer_figure_and_command_for_each_experiment() -> None:
    lines = [line for line in book_page(EXPERIMENTS).splitlines() if line.startswith("| [")]
    folders = [path.parent for path in EXPERIMENTS.rglob("run.sh")]
    assert len(lines) == len(folders)
    assert len(SHOWN) == len(folders), "SHOWN in docs/site/book.py names an experiment that is gone"
    for folder in folders:
        name = folder.relative_to(EXPERIMENTS).as_posix()
        (line,) = (line for line in lines if f"]({name}/README.md)" in line)
        question, _, answer = (folder / "README.md").read_text("utf-8").splitlines()[:3]
        assert question.removeprefix("# ") in line
        assert answer.strip("*") in line
        assert f"experiments/{name}/" in line.split(" | ")[3]


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_book_shows_of_an_experiment_is_in_its_files(name: str) -> None:
    shown = SHOWN[name]
    metrics = json.loads((EXPERIMENTS / name / "metrics.json").read_text("utf-8"))
    assert shown.key in metrics
    rows = map(json.loads, (EXPERIMENTS / name / "results.jsonl").read_text("utf-8").splitlines())
    assert not shown.seconds or any(row.get(shown.seconds) for row in rows)


def test_the_pages_of_options_are_up_to_date_and_in_the_navigation() -> None:
    folder = ROOT / "docs" / "options"
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == option_pages(CONFIG_DIR), HINT
    named = re.findall(r"docs/options/(\w+)\.md", (ROOT / "mkdocs.yml").read_text("utf-8"))
    assert named == ["README", *TOPICS]


def test_every_option_is_a_heading_on_one_page_and_the_index_leads_to_it() -> None:
    pages = option_pages(CONFIG_DIR)
    links = dict(re.findall(r"\[`([\w.]+)`\]\((\w+\.md#\w+)\)", pages.pop("README.md")))
    keys = [key for key, *_ in options(CONFIG_DIR)]
    assert sorted(links) == sorted(keys)
    headings = [line for page in pages.values() for line in page.splitlines() if line.startswith("### ")]
    assert sorted(headings) == sorted(f"### `{key}`" for key in keys)
    for key, link in links.items():
        name, _, anchor = link.partition("#")
        assert f"### `{key}`" in pages[name].splitlines()
        assert anchor in anchors(pages[name])


def test_an_entry_says_what_an_option_does_its_default_what_fits_and_where_it_is() -> None:
    entry = sections(option_pages(CONFIG_DIR)["data.md"], 3)["`data.min_audio_score`"]
    assert entry.strip().endswith(
        "<br>*default `0.0`; a number of at least 0 and at most 1; only with `data=aria`, `data=mix`*"
    )
    seed = sections(option_pages(CONFIG_DIR)["data.md"], 3)["`data.seed`"]
    assert "[`data.limit`](data.md#datalimit)" in seed
    assert " with " not in seed
    for name, page in option_pages(CONFIG_DIR).items():
        entries = [line for line in page.splitlines() if "<br>" in line]
        assert bool(entries) != (name == "README.md")
        assert all(
            len(re.findall(r"(?<!\\)\*", line)) == 2 for line in entries
        )  # only the defaults are slanted


def test_the_page_of_keys_is_up_to_date_and_has_every_old_key() -> None:
    page = keys_page()
    assert (ROOT / "docs" / "keys.md").read_text("utf-8") == page, HINT
    assert all(f"| `{key}` |" in page for key in {**RENAMED, **REMOVED})


def test_the_page_of_stages_is_up_to_date() -> None:
    page = (ROOT / "docs" / "stages.md").read_text("utf-8")
    assert page == stages_page((ROOT / "docs" / "metrics.md").read_text("utf-8")), HINT
    assert set(sections(page, 2)) == set(stage_names())
    assert all(find_stage(name).sentence in page for name in stage_names())


def test_the_code_of_the_tour_prints_what_the_page_says() -> None:
    page = (ROOT / "docs" / "tour.md").read_text("utf-8")
    assert len(blocks(page, "python")) == len(blocks(page, "text")) == 5
    assert page == with_outputs(page, ROOT), HINT


def test_the_music_of_the_tour_is_that_of_its_pictures() -> None:
    _, composed = demo_piece(3)
    piece = Piece.from_midi(ROOT / "docs" / "tour" / "invention.mid", beats="file")
    assert (piece.notes == composed.notes).all()
    assert (piece.beats == composed.beats).all()
    assert all((ROOT / "docs" / "tour" / f"{name}.png").is_file() for name in PANELS)


def test_the_files_that_the_tour_names_exist() -> None:
    rows = sections((ROOT / "docs" / "tour.md").read_text("utf-8"), 2)["Which file holds each step"]
    for line in rows.splitlines():
        names = re.findall(r"`([\w/]+\.py|[\w/]+/)`", line)
        folder = ROOT / Path(names[0]).parent if names else ROOT
        assert all((ROOT / name).exists() or (folder / name).exists() for name in names), line
